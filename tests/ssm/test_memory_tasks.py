"""The memory benchmark: labels against independent computations, masks, balance, and the shape of its figures."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.errors import ConfigError
from robonav.ssm.layers.attention import Attention
from robonav.ssm.layers.gated_delta import GatedDeltaNet
from robonav.ssm.measure.memory import (
    PATTERNS,
    RECIPES,
    USUAL_TASKS,
    Probe,
    Recipe,
    _schedule,
    _stack,
    _training_length,
    measure_memory,
    measure_probe,
    wilson_interval,
)
from robonav.ssm.measure.tasks import TASKS, Arithmetic, Batch, Copying, Cue, Parity, Recall


def draw(task: str, count: int, length: int, seed: int = 0, balanced: bool = False) -> Batch:
    return TASKS[task].batch(count, length, torch.Generator().manual_seed(seed), balanced)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(TASKS)), st.integers(8, 30), st.integers(0, 99), st.booleans())
def test_tokens_targets_and_masks_are_consistent_and_repeatable(
    task: str, length: int, seed: int, balanced: bool
) -> None:
    batch = draw(task, 6, length, seed, balanced)
    again = draw(task, 6, length, seed, balanced)
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    assert len({part.shape for part in batch}) == 1
    assert int(batch.tokens.min()) >= 0 and int(batch.tokens.max()) < TASKS[task].inputs
    assert int(batch.target.min()) >= 0 and int(batch.target.max()) < TASKS[task].classes
    assert batch.scored.any(1).all() and not (batch.scored & ~batch.asked).any()
    assert not batch.target[~batch.asked].any()
    other = draw(task, 6, length, seed + 1, balanced)
    assert not torch.equal(batch.tokens, other.tokens)


@pytest.mark.parametrize("balanced", [False, True])
def test_parity_is_the_exclusive_or_of_the_bits_so_far(balanced: bool) -> None:
    batch = draw("parity", 50, 17, balanced=balanced)
    for tokens, target, asked, scored in zip(*(part.tolist() for part in batch), strict=True):
        assert tokens[0] == 2 and not asked[0]
        odd = 0
        for bit, answer in zip(tokens[1:], target[1:], strict=True):
            odd ^= bit
            assert answer == odd
        assert all(asked[1:]) and scored == [False] * 17 + [True]


@pytest.mark.parametrize("task", ["modular", "arithmetic"])
def test_arithmetic_is_what_python_makes_of_every_prefix(task: str) -> None:
    batch = draw(task, 60, 21, balanced=True)
    assert TASKS[task].inputs == 9
    for tokens, target, asked in zip(*(part.tolist() for part in batch[:3]), strict=True):
        assert tokens[0] == 8
        text = ""
        for place, (token, answer) in enumerate(zip(tokens[1:], target[1:], strict=True)):
            text += str(token) if token < 5 else "+-*"[token - 5]
            assert asked[place + 1] == (place % 2 == 0)
            if place % 2 == 0:
                assert answer == eval(text) % 5
        assert ("*" in text) <= (task == "arithmetic")
    assert batch.tokens.shape[1] == 22 and batch.scored[:, -1].all() and batch.scored.sum() == 60


def test_recall_asks_for_every_key_once_and_wants_its_value() -> None:
    batch = draw("recall", 40, 9)
    for tokens, target, asked in zip(*(part.tolist() for part in batch[:3]), strict=True):
        pairs = dict(zip(tokens[0:18:2], tokens[1:18:2], strict=True))
        assert len(pairs) == 9 and tokens[18] == 80
        assert asked == [False] * 19 + [True] * 9
        assert sorted(tokens[19:]) == sorted(pairs)
        assert target[19:] == [pairs[key] - 64 for key in tokens[19:]]
    assert any(batch.tokens[i, 0:18:2].tolist() != batch.tokens[i, 19:].tolist() for i in range(40))


def test_copying_wants_the_data_in_order() -> None:
    batch = draw("copying", 40, 25)
    for tokens, target, asked in zip(*(part.tolist() for part in batch[:3]), strict=True):
        data = [token for token in tokens[:25] if token != 8]
        assert len(data) == 6 and tokens[25:] == [9] * 6
        assert target[25:] == data and asked == [False] * 25 + [True] * 6
    assert len({tuple(row) for row in (batch.tokens[:, :25] != 8).tolist()}) > 30  # places vary


def test_the_cue_is_shown_once_and_asked_for_after_the_delay() -> None:
    batch = draw("cue", 40, 12)
    for tokens, target, asked in zip(*(part.tolist() for part in batch[:3]), strict=True):
        assert len(tokens) == 14 and tokens[0] in (0, 1) and tokens[-1] == 6
        assert all(2 <= token < 6 for token in tokens[1:-1])
        assert asked == [False] * 13 + [True] and target[-1] == tokens[0]


@pytest.mark.parametrize("task", ["parity", "modular", "arithmetic", "cue"])
@pytest.mark.parametrize("count", [1, 10, 57])
def test_balanced_answers_are_equally_frequent(task: str, count: int) -> None:
    batch = draw(task, count, 33, balanced=True)
    shares = Counter(batch.target[batch.scored].tolist())
    counts = [shares[value] for value in range(TASKS[task].classes)]
    assert sum(counts) == count and max(counts) - min(counts) <= 1
    assert TASKS[task].chance == 1 / TASKS[task].classes


def test_balancing_keeps_bits_fair_and_other_answers_are_balanced_on_average() -> None:
    bits = draw("parity", 400, 40, balanced=True).tokens[:, 1:]
    assert abs(float(bits.float().mean()) - 0.5) < 0.02
    for task in ("recall", "copying"):
        batch = draw(task, 400, 16, balanced=True)
        shares = torch.bincount(batch.target[batch.scored]) / batch.scored.sum()
        assert torch.allclose(shares, torch.full_like(shares, TASKS[task].chance), atol=0.25 * TASKS[task].chance)


def test_sizes_of_tasks_follow_their_arguments() -> None:
    generator = torch.Generator().manual_seed(0)
    assert Arithmetic(products=True, modulus=3).batch(8, 9, generator, balanced=True).target.max() == 2
    assert Arithmetic().batch(2, 40, generator).tokens.shape == (2, 40)  # start and 39, the last operator is left out
    assert Recall(keys=4, values=2).batch(3, 4, generator).tokens.shape == (3, 13)
    assert Copying(items=2).batch(3, 5, generator).asked.sum() == 6
    assert Cue(cues=4).chance == 1 / 4 and Parity().batch(0, 5, generator).tokens.shape == (0, 6)


def test_wilson_interval_equals_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for hits, n in ((0, 10), (5, 10), (995, 1000), (1000, 1000)):
        want = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson_interval(hits, n) == pytest.approx((want.low, want.high), abs=1e-4)


def test_training_lengths_grow_to_the_longest_and_never_beyond() -> None:
    draws = torch.Generator().manual_seed(0)
    recipe = Recipe(1, 2, 40, (40,), 40, updates=100)
    lengths = [_training_length(recipe, update, draws) for update in range(100)]
    assert lengths[0] == 2 and max(lengths) == 40 and set(lengths[30:]) == {40} and min(lengths) == 2
    spread = Recipe(1, 1, 64, (64,), None, spread=True, updates=1000)
    lengths = [_training_length(spread, update, draws) for update in range(1000)]
    assert set(lengths) >= {1, 2, 63, 64} and max(lengths) == 64
    assert _schedule(recipe, 0) < _schedule(recipe, 20) and 0 < _schedule(recipe, 99) < 0.02


def test_the_hybrid_has_one_attention_that_is_never_first() -> None:
    assert [_stack("MA", layers) for layers in (1, 2, 3, 4)] == ["MA", "MAM", "MMAM", "MMAMM"]
    assert _stack("2", 3) == "222"


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_probes_of_every_kind_are_causal_and_see_the_past(name: str) -> None:
    torch.manual_seed(0)
    probe = Probe(TASKS["cue"], name, RECIPES["cue"], "published")
    tokens = torch.randint(7, (2, 80))
    with torch.no_grad():
        before = probe(tokens)
        late, early = tokens.clone(), tokens.clone()
        late[:, -1] = (late[:, -1] + 1) % 7
        early[:, 0] = (early[:, 0] + 1) % 7
        assert torch.allclose(probe(late)[:, :-1], before[:, :-1], atol=1e-5)
        reached = (probe(early) != before).any(-1)  # (2, 80); gated DeltaNet may begin with a short memory
        assert bool(reached[:, 1 if name == "gated_delta" else 79].any()) == (name != "memoryless")
    for layer in probe.backbone.layers:
        if isinstance(layer, Attention):
            assert layer.window >= 80
        if isinstance(layer, GatedDeltaNet):
            assert layer.max_beta == 2.0


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    return measure_memory("quick", ["cue"], ["mamba3", "memoryless"])


def test_figures_have_the_stated_keys(quick: dict[str, Any]) -> None:
    lines: list[str] = []
    saved: list[dict[str, Any]] = []

    def report(line: str, figures: dict[str, Any]) -> None:
        lines.append(line)
        saved.append(json.loads(json.dumps(figures)))

    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    figures = measure_memory("quick", ["cue"], ["mamba3", "memoryless"], report=report)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert set(figures["tasks"]["cue"]) == {"mamba3", "memoryless"}
    for found in figures["tasks"]["cue"].values():
        low, high = found["interval"]
        assert 0 <= low <= found["accuracy"] <= high <= 1
        assert found["n"] == 60 and found["chance"] == 0.5 and found["updates"] == 4 and found["parameters"] > 1000
        assert list(found["by_length"]) == ["16", "32", "64", "128", "256", "512"] and found["seconds"] > 0
    assert figures["tasks"]["cue"]["memoryless"]["accuracy"] == 0.5  # balanced: exactly chance
    assert [len(figures["tasks"]["cue"]) for figures in saved] == [1, 2] and saved[-1] == figures
    assert lines[0].startswith("cue mamba3: 0.") and "chance 0.500" in lines[0]
    for name, found in figures["tasks"]["cue"].items():  # the same seed, the same figures
        assert {**found, "seconds": 0} == {**quick["tasks"]["cue"][name], "seconds": 0}


def test_a_broken_off_measurement_goes_on_where_it_was(quick: dict[str, Any]) -> None:
    known = json.loads(json.dumps(quick))
    known["tasks"]["cue"]["mamba3"]["accuracy"] = 0.25  # tells kept figures from new ones
    again = measure_memory("quick", ["parity"], ["memoryless"], known=known)
    assert set(again["tasks"]) == {"parity", "cue"} and set(again["tasks"]["parity"]) == {"memoryless"}
    assert again["tasks"]["cue"]["mamba3"]["accuracy"] == 0.25
    for change in ({"seed": 1}, {"recipes": {}}, {"tasks": {}}):
        fresh = measure_memory("quick", ["cue"], ["memoryless"], known={**known, **change})
        assert set(fresh["tasks"]["cue"]) == {"memoryless"} and "parity" not in fresh["tasks"]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="parity"):
        measure_memory("quick", ["parrity"])
    with pytest.raises(ConfigError, match="mamba3_mimo"):
        measure_memory("quick", ["parity"], ["mamba4"])
    assert set(USUAL_TASKS) <= set(RECIPES) and set(RECIPES) == set(TASKS)


@pytest.mark.slow
def test_mamba3_tracks_a_parity_that_mamba2_cannot() -> None:
    assert measure_probe("parity", "mamba3", RECIPES["parity"])["accuracy"] >= 0.99
    assert measure_probe("parity", "mamba2", RECIPES["parity"])["accuracy"] <= 0.60
