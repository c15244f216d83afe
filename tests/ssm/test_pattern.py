"""Pattern strings: groups, repetition, where MLPs stand, and errors that name letter and position."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robonav.errors import ConfigError
from robonav.ssm.pattern import LETTERS, MLP, MOST_LAYERS, describe_pattern, expand_pattern, with_mlps

LAYERS = "".join(set(LETTERS) - {MLP})


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("MM", "MM"),
        ("M*4", "MMMM"),
        ("(MMMA)*3", "MMMAMMMAMMMA"),
        ("((MI)*2A)*2-", "MIMIAMIMIA-"),
        ("M*12", "M" * 12),
        ("M*4 2", "MMMM2"),
        ("(M*4)2", "MMMM2"),
        (" 2-2-2A- ", "2-2-2A-"),
        ("(M(A))", "MA"),
    ],
)
def test_groups_and_counts(text: str, letters: str) -> None:
    assert expand_pattern(text) == letters


@given(st.text(LAYERS, min_size=1, max_size=9), st.integers(1, 9), st.text(LAYERS, max_size=9))
def test_a_counted_group_is_its_letters_that_often(group: str, count: int, rest: str) -> None:
    assert expand_pattern(f"({group})*{count} {rest}") == group * count + rest
    assert expand_pattern(group) == group


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a layer, got '' (empty)"),
        ("()*3", "expected a layer, got '()*3' (empty)"),
        ("--", "expected a layer besides the MLPs, got '--' (none)"),
        ("MQA", "got 'MQA' (unknown: Q at position 2)"),
        ("(M m)*2", "(unknown: m at position 4)"),
        ("M-M*-", "a count of at least 1 behind * (attention is the letter A), got 'M-M*-' ('' at position 4)"),
        ("M*0", "('0' at position 2)"),
        ("M*-1", "('' at position 2)"),
        ("*3", "(unknown: * at position 1)"),
        ("M(MA*2", "a ) for every (, got 'M(MA*2' (an open ( at position 2)"),
        ("MA)", "(unknown: ) at position 3)"),
        ("M²", "(unknown: ² at position 2)"),
        (f"M*{MOST_LAYERS + 1}", f"at most {MOST_LAYERS} letters"),
        ("((M*100)*100)*100", f"at most {MOST_LAYERS} letters"),
        ("(" * 5000, "at most 256 signs, got 5000"),
    ],
)
def test_errors_name_letter_and_position(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand_pattern(text)
    assert str(error.value).startswith("backbone.pattern: expected ")
    assert said in str(error.value)


@given(st.text("M2A()*-13 Qé٣", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        letters = expand_pattern(text)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert 1 <= len(letters) <= MOST_LAYERS
        assert set(letters) <= set(LETTERS)


def test_mlps_stand_behind_every_layer_unless_the_pattern_places_them() -> None:
    assert with_mlps("MMA", True) == "M-M-A-"
    assert with_mlps("MMA", False) == "MMA"
    assert with_mlps("M-MMA-", True) == "M-MMA-"


def test_description_names_each_kind_once() -> None:
    assert describe_pattern("(MM-A)*2R") == "Mamba-3, attention, Mamba-3 MIMO"
