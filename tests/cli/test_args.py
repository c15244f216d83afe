from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import tyro

from robonav.cli.args import UsageError, comma_ints, parse


@dataclass(frozen=True)
class Model:
    d_model: int = 64
    """Width."""
    dropout: float = 0.0
    """Share of units left out."""


@dataclass(frozen=True)
class Args:
    file: tyro.conf.Positional[Path]
    """A file."""
    policy: str
    """Which policy."""
    num_episodes: int = 3
    """How many."""
    scene: Literal["office", "rooms"] = "office"
    """Where."""
    json: Path | None = None
    """Figures."""
    video: bool = False
    """Film it."""
    model: Model = field(default_factory=Model)


def read(argv: list[str], default: Args | None = None) -> Args:
    return parse(Args, argv, "robonav try", "Tries.", ["robonav try a.mcap --policy astar"], default)


def test_values_arrive_typed_and_defaults_stay():
    args = read(["a.mcap", "--policy", "astar", "--num-episodes=5", "--video", "--model.d-model", "128"])
    assert args == Args(Path("a.mcap"), "astar", num_episodes=5, video=True, model=Model(d_model=128))


def test_flags_override_a_given_config():
    given = Args(Path("a"), "astar", model=Model(dropout=0.5))
    assert read(["a", "--model.d-model", "8"], given) == Args(Path("a"), "astar", model=Model(8, 0.5))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a", "--polcy", "x"], "unknown option '--polcy'; did you mean '--policy'?"),
        (["a", "--polcy=x"], "unknown option '--polcy'; did you mean '--policy'?"),
        (["a", "--policy", "x", "--model.dmodel", "3"], "did you mean '--model.d-model'?"),
        (["a"], "missing: --policy STR"),
        ([], "--policy STR"),
        (["a", "--policy"], "missing value for argument '--policy'"),
        (["a", "--policy", "x", "--num-episodes", "many"], "--num-episodes: expected a whole number, got 'many'"),
        (["a", "--policy", "x", "--num-episodes", "1.5"], "--num-episodes: expected a whole number, got '1.5'"),
        (["a", "--policy", "x", "--model.dropout", "much"], "--model.dropout: expected a number, got 'much'"),
        (["a", "--policy", "x", "--model.dropout", "nan"], "--model.dropout: expected a finite number, got nan"),
        (
            ["a", "--policy", "x", "--scene", "offic"],
            "'offic' for argument '--scene', expected one of ('office', 'rooms')",
        ),
        (["a", "b", "--policy", "x"], "unexpected argument: b"),
        (["a", "--policy", "x", "--json"], "missing value for argument '--json'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(argv, said):
    with pytest.raises(UsageError) as caught:
        read(argv)
    line = str(caught.value)
    assert said in line
    assert line.endswith("see 'robonav try --help'")
    assert not set("╭│╰\n") & set(line)


def test_a_long_value_is_not_broken(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    word = "long" * 40
    with pytest.raises(UsageError, match=word):
        read(["a", "--policy", "x", "--num-episodes", word])


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["a", "--polcy", "--help"]])
def test_help_shows_fields_and_examples_and_succeeds(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        read(argv)
    out, err = capsys.readouterr()
    assert stopped.value.code in (0, None)
    assert "Which policy." in out
    assert "--num-episodes" in out
    assert out.endswith("examples:\n  robonav try a.mcap --policy astar\n")
    assert err == ""


@pytest.mark.parametrize(
    ("text", "numbers"), [("", ()), ("3", (3,)), ("1,2,5-7", (1, 2, 5, 6, 7)), (" 1 , 2,", (1, 2)), ("4-4", (4,))]
)
def test_numbers_between_commas(text, numbers):
    assert comma_ints(text, "--worlds") == numbers


@pytest.mark.parametrize("text", ["a", "1;2", "-1", "7-5", "1.5", "1-2-3", "1-99999999999"])
def test_other_text_between_commas_is_refused(text):
    with pytest.raises(UsageError, match=r"--worlds: expected"):
        comma_ints(text, "--worlds")
