"""What ``robonav bench memory`` measures: small probes, one a task and kind of layer, trained and tested alike.

A probe is an embedding, a `Backbone` of one kind of layer without SwiGLU blocks, and a linear head that reads the
residual stream as it is. A final norm would saturate: a probe could then let its memory fade or drift within the
training length at no loss, and fail beyond it. The hybrid is the Mamba-3 stack with one attention more, mid-depth.

All layers get the same data, updates, batch, schedule and candidates: step sizes that start in a range wide enough for
a turn by pi in one step and, but for the state-tracking tasks, in the published range. (For a layer without step sizes
these are two seeds.) The candidate with the lowest loss on fresh sequences of the training length counts.

Mamba-3 has the paper's decay, softplus: with the public code's rational one, slow decays are learnt far more slowly.
Gated DeltaNet has negative eigenvalues, as where its state tracking was published.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.ssm.backbone import Backbone, BackboneConfig
from robonav.ssm.layers.attention import Attention
from robonav.ssm.layers.gated_delta import GatedDeltaNet
from robonav.ssm.layers.mamba1 import Mamba1
from robonav.ssm.layers.mamba3 import Mamba3
from robonav.ssm.measure.layers import check_names
from robonav.ssm.measure.tasks import TASKS, Batch, Task

Figures = dict[str, Any]
Report = Callable[[str, Figures], None]

STARTS = {"wide": (0.1, 1.0), "published": (1e-3, 0.1)}  # step sizes; a turn by pi takes one of 1
LABEL_SMOOTHING = 0.1  # gives the loss a minimum at finite margins, so that exactness goes on paying
BETAS = (0.9, 0.95)
CLIP = 1.0
WARM_UP = 50
TEST_TOKENS = 16 * 1024  # in one batch
DIVERGED = 1e9  # a loss that is not finite, in figures that are written as JSON

PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba1": ("1", {}),
    "mamba2": ("2", {}),
    "mamba3": ("M", {}),
    "mamba3_mimo": ("R", {"rank": 2}),
    "mamba3_no_rotation": ("M", {"rope_fraction": 0.0}),
    "s4d": ("S", {}),
    "gated_delta": ("D", {}),
    "attention": ("A", {}),
    "attention_rope": ("P", {}),
    "hybrid": ("MA", {}),
    "gru": ("G", {}),
    "memoryless": ("I", {}),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How probes of one task are trained and tested, the same for every kind of layer."""

    layers: int
    """Layers of the stack."""
    shortest: int
    """Training length at the start of the curriculum."""
    longest: int
    """Training length at its end, the longest that is trained on."""
    tests: tuple[int, ...]
    """Lengths that are tested; accuracy is that at `headline`."""
    headline: int | None
    """The length that accuracy stands for; none for the mean over `tests`."""
    spread: bool = False
    """Whether lengths are drawn (log-uniformly) up to the curriculum's, or all equal it once it has ended."""
    updates: int = 1000
    batch: int = 32
    sequences: int = 1000
    """Sequences tested at each length."""
    rate: float = 5e-3
    """Highest learning rate."""
    starts: tuple[str, ...] = ("wide", "published")
    """Candidates: ranges of the initial step sizes, out of `STARTS`."""
    d_model: int = 32
    d_state: int = 8
    headdim: int = 16
    curriculum: float = 0.3
    """Share of the updates in which the length grows."""
    decay: float = 0.7
    """Share of the updates at the end in which the learning rate falls to 0."""


RECIPES: dict[str, Recipe] = {
    "parity": Recipe(2, 2, 40, (40, 128, 256), 256, starts=("wide",)),
    "modular": Recipe(2, 3, 39, (39, 127, 255), 255, starts=("wide",)),
    "arithmetic": Recipe(2, 3, 39, (39, 127, 255), 255, starts=("wide",)),
    "recall": Recipe(2, 2, 16, (8, 16, 32), 16, sequences=128),
    "copying": Recipe(2, 6, 32, (32, 64, 256), 64, sequences=256, spread=True),
    "cue": Recipe(2, 1, 64, (16, 32, 64, 128, 256, 512), None, sequences=400, spread=True),
}
USUAL_TASKS = ("parity", "modular", "recall", "copying", "cue")  # products take four times as long to learn


class Probe(nn.Module):
    """Tokens (B, T) to logits (B, T, classes)."""

    def __init__(self, task: Task, name: str, recipe: Recipe, start: str) -> None:
        super().__init__()
        letter, sizes = PATTERNS[name]
        config = BackboneConfig(
            pattern=_stack(letter, recipe.layers),
            d_model=recipe.d_model,
            d_state=recipe.d_state,
            headdim=recipe.headdim,
            mlp_ratio=0.0,
            attention_heads=recipe.d_model // recipe.headdim,
            **sizes,
        )
        self.embedding = nn.Embedding(task.inputs, recipe.d_model)
        self.backbone = Backbone(config)
        self.backbone.out_norm = nn.Identity()  # type: ignore[assignment]
        self.head = nn.Linear(recipe.d_model, task.classes)
        for layer in self.backbone.layers:
            _prepare(layer, STARTS[start])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, classes)."""
        for layer in self.backbone.layers:
            if isinstance(layer, Attention):
                layer.window = tokens.shape[1]  # it is to see the whole sequence
        x = self.embedding(tokens)
        y, _ = self.backbone.scan(x, self.backbone.initial_state(len(tokens)))
        return self.head(y)


def measure_memory(
    budget: Literal["full", "quick"] = "full",
    tasks: Iterable[str] | None = None,
    layers: Iterable[str] | None = None,
    seed: int = 0,
    report: Report | None = None,
    known: Mapping[str, Any] | None = None,
) -> Figures:
    """Trains and tests one probe a task and kind of layer.

    Args:
        budget: "quick" only shows that everything runs: a few updates, figures without meaning.
        tasks, layers: names out of `RECIPES` and `PATTERNS`; by default `USUAL_TASKS` and all layers.
        seed: of weights and data; the same seed gives the same figures on the same machine and version of torch.
        report: called after each probe with a line on it and the figures so far, to save them.
        known: figures of an earlier call; its probes of the same recipe and seed are kept, also of tasks not asked for.

    Returns:
        ``tasks.TASK.NAME`` with accuracy, n (answers tested), interval (Wilson, 95 %; a little narrow where a sequence
        holds several answers), chance, by_length (accuracy a test length), loss (on fresh sequences of the training
        length), start (the candidate kept), other_accuracy (of those not kept), parameters, updates, seconds;
        ``recipes.TASK``, ``budget``, ``seed``.

    Raises:
        ConfigError: an unknown task or layer.
    """
    some_tasks = check_names(tasks or USUAL_TASKS, RECIPES, "tasks")
    names = check_names(layers or PATTERNS, PATTERNS, "layers")
    figures: Figures = {"tasks": {}, "recipes": {}, "budget": budget, "seed": seed}
    recipes = {task: recipe if budget == "full" else _quick(recipe) for task, recipe in RECIPES.items()}
    for task, recipe in recipes.items():
        found = _found(known or {}, task, _plain(recipe), seed)
        if found or task in some_tasks:
            figures["tasks"][task], figures["recipes"][task] = found, _plain(recipe)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for task in some_tasks:
            probes = figures["tasks"][task]
            for name in (name for name in names if name not in probes):
                probes[name] = measure_probe(task, name, recipes[task], seed)
                if report is not None:
                    report(_line(task, name, probes[name]), figures)
    finally:
        torch.set_num_threads(threads)
    return figures


def measure_probe(task: str, name: str, recipe: Recipe, seed: int = 0) -> Figures:
    """Trains and tests the candidates of one task and kind of layer; the one with the lowest validation loss counts."""
    begin = time.perf_counter()
    candidates: dict[str, Figures] = {}
    for start in recipe.starts:
        probe = train_probe(task, name, recipe, start, seed)
        loss = _validation_loss(probe, task, recipe, seed)
        candidates[start] = {**_test(probe, task, recipe, seed), "loss": loss}
    kept = min(candidates, key=lambda start: candidates[start]["loss"])
    return {
        **candidates[kept],
        "start": kept,
        "chance": TASKS[task].chance,
        "parameters": sum(p.numel() for p in probe.parameters()),
        "updates": recipe.updates,
        "seconds": time.perf_counter() - begin,
        "other_accuracy": {start: found["accuracy"] for start, found in candidates.items() if start != kept},
    }


def train_probe(task: str, name: str, recipe: Recipe, start: str, seed: int = 0) -> Probe:
    """A probe after `recipe.updates` of Adam; weights and data depend on the seed, the task and the candidate alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(seed, task, start, "weights"))
        probe = Probe(TASKS[task], name, recipe, start)
    draws = torch.Generator().manual_seed(_seed(seed, task, start, "training"))
    optimizer = torch.optim.Adam(probe.parameters(), lr=recipe.rate, betas=BETAS, fused=True)
    for update in range(recipe.updates):
        batch = TASKS[task].batch(recipe.batch, _training_length(recipe, update, draws), draws)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _schedule(recipe, update)
        optimizer.zero_grad()
        _loss(probe, batch).backward()
        nn.utils.clip_grad_norm_(probe.parameters(), CLIP)
        optimizer.step()
    return probe


def wilson_interval(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 % by default."""
    share = hits / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _stack(letter: str, layers: int) -> str:
    """A pure stack of so many layers; the hybrid's letters MA stand for one attention more, in the middle of it."""
    if letter != "MA":
        return letter * layers
    return "M" * ((layers + 1) // 2) + "A" + "M" * (layers // 2)


def _prepare(layer: nn.Module, start: tuple[float, float]) -> None:
    """Settings that the backbone has no field for: the start of step sizes, the paper's decay, negative eigenvalues."""
    low, high = (math.log(size) for size in start)
    bias = layer.dt_proj.bias if isinstance(layer, Mamba1) else getattr(layer, "dt_bias", None)
    if bias is not None:
        assert isinstance(bias, Tensor)
        dt = torch.empty_like(bias).uniform_(low, high).exp()
        with torch.no_grad():
            bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus(bias) = dt
    if isinstance(layer, Mamba3):
        layer.a_form = "softplus"
    if isinstance(layer, GatedDeltaNet):
        layer.max_beta = 2.0


def _loss(probe: Probe, batch: Batch) -> Tensor:
    logits = probe(batch.tokens)[batch.asked]
    return F.cross_entropy(logits, batch.target[batch.asked], label_smoothing=LABEL_SMOOTHING)


def _training_length(recipe: Recipe, update: int, draws: torch.Generator) -> int:
    """Within the curriculum up to a limit that grows, from half of it on; then the longest, or as spread."""
    done = min(1.0, update / max(1.0, recipe.curriculum * recipe.updates))
    limit = recipe.shortest + int(done * (recipe.longest - recipe.shortest))
    if done == 1 and not recipe.spread:
        return limit
    least = recipe.shortest if recipe.spread else max(recipe.shortest, limit // 2)
    share = float(torch.rand((), generator=draws))
    return min(limit, int(least * ((limit + 1) / least) ** share))


def _schedule(recipe: Recipe, update: int) -> float:
    """Share of the highest rate: a short rise, a plateau, a straight fall to 0."""
    left = (recipe.updates - update) / max(1.0, recipe.decay * recipe.updates)
    return min(1.0, (update + 1) / WARM_UP, left)


@torch.no_grad()
def _validation_loss(probe: Probe, task: str, recipe: Recipe, seed: int) -> float:
    draws = torch.Generator().manual_seed(_seed(seed, task, "validation"))
    loss = float(_loss(probe, TASKS[task].batch(256, recipe.longest, draws)))
    return loss if math.isfinite(loss) else DIVERGED


@torch.no_grad()
def _test(probe: Probe, task: str, recipe: Recipe, seed: int) -> Figures:
    """Accuracy on fresh, balanced sequences of the test lengths."""
    hits: dict[int, tuple[int, int]] = {}
    for length in recipe.tests:
        draws = torch.Generator().manual_seed(_seed(seed, task, f"test {length}"))
        batch = TASKS[task].batch(recipe.sequences, length, draws, balanced=True)
        rows = max(1, TEST_TOKENS // batch.tokens.shape[1])
        answers = torch.cat([probe(tokens).argmax(-1) for tokens in batch.tokens.split(rows)])
        hits[length] = (int(((answers == batch.target) & batch.scored).sum()), int(batch.scored.sum()))
    counted = list(hits.values()) if recipe.headline is None else [hits[recipe.headline]]
    right, n = sum(r for r, _ in counted), sum(m for _, m in counted)
    return {
        "accuracy": right / n,
        "n": n,
        "interval": list(wilson_interval(right, n)),
        "by_length": {str(length): r / m for length, (r, m) in hits.items()},
    }


def _quick(recipe: Recipe) -> Recipe:
    return replace(recipe, updates=4, batch=4, sequences=10, starts=recipe.starts[:1])


def _plain(recipe: Recipe) -> Figures:
    """As JSON gives it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}


def _found(known: Mapping[str, Any], task: str, recipe: Figures, seed: int) -> Figures:
    """The task's probes in figures of an earlier call, if their recipe and seed are these."""
    if known.get("seed") != seed or known.get("recipes", {}).get(task) != recipe:
        return {}
    return {name: probe for name, probe in known.get("tasks", {}).get(task, {}).items() if name in PATTERNS}


def _seed(seed: int, *words: str) -> int:
    return zlib.crc32(f"{seed} {' '.join(words)}".encode())


def _line(task: str, name: str, found: Figures) -> str:
    low, high = found["interval"]
    lengths = ", ".join(f"{length}: {share:.3f}" for length, share in found["by_length"].items())
    return (
        f"{task} {name}: {found['accuracy']:.3f} ({low:.3f} to {high:.3f}; chance {found['chance']:.3f}; "
        f"{lengths}; {found['seconds']:.0f} s)"
    )
