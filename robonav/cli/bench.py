"""``robonav bench``: what is measured on this machine. One benchmark a word, each with flags of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robonav.cli import bench_log, bench_loop, bench_nav, bench_train, bench_worldmodel
from robonav.cli.args import UsageError, parse
from robonav.cli.figures import earlier, finish
from robonav.errors import explain, nearest
from robonav.files import write_json_atomic


@dataclass(frozen=True)
class SimArgs:
    """Arguments of ``robonav bench sim``."""

    parts: tuple[str, ...] = ()
    """Of analytic, lidar, lidar_depth, legged, vector; all by default."""
    scene: str = "rooms"
    """Preset that episodes are drawn from."""
    robot: str = "a1"
    """Preset under configs/robots, or a .toml file."""
    seconds: float = 2.0
    """Of each part in each round."""
    rounds: int = 5
    """How often each part is measured, in turns; figures are medians, with the slowest and the fastest round."""
    workers: int | None = None
    """Processes of the vector environment; one a core if not given."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


@dataclass(frozen=True)
class GaitArgs:
    """Arguments of ``robonav bench gait``."""

    robots: tuple[str, ...] = ()
    """Robots to walk: presets or .toml files; all presets whose URDF is installed by default."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


@dataclass(frozen=True)
class SsmArgs:
    """Arguments of ``robonav bench ssm``."""

    layers: tuple[str, ...] = ()
    """Layers to measure, by name; all by default. Keep gru among them for the ratios."""
    threads: int = 1
    """Threads of torch and of the compiled loops."""
    rounds: int = 15
    """Runs of each layer, taken in turns; figures are medians."""
    json: Path | None = None
    """File for the figures; they are printed as well."""


@dataclass(frozen=True)
class MemoryArgs:
    """Arguments of ``robonav bench memory``."""

    tasks: tuple[str, ...] = ()
    """Tasks to train on; all by default."""
    layers: tuple[str, ...] = ()
    """Layers to train, by name; all by default."""
    budget: Literal["full", "quick"] = "full"
    """full takes tens of minutes; quick, a few updates each, only shows that it runs."""
    seed: int = 0
    """Of weights and data."""
    json: Path | None = None
    """File for the figures, saved after each probe; probes of the same recipe that it holds are not run again."""


def _sim(argv: list[str]) -> int:
    examples = ["robonav bench sim --json sim.json", "robonav bench sim --parts legged vector --rounds 3"]
    args = parse(SimArgs, argv, "robonav bench sim", BENCHMARKS["sim"][1], examples)
    from sim.bench import PARTS, measure

    parts = args.parts or PARTS
    return finish(
        measure(parts, args.scene, args.robot, args.seconds, args.rounds, args.workers, report=_say), args.json
    )


def _gait(argv: list[str]) -> int:
    examples = ["robonav bench gait --json gait.json", "robonav bench gait --robots a1 my_robot.toml"]
    args = parse(GaitArgs, argv, "robonav bench gait", BENCHMARKS["gait"][1], examples)
    from sim.gait_bench import measure_gait

    return finish(measure_gait(args.robots, report=_say), args.json)


def _ssm(argv: list[str]) -> int:
    examples = ["robonav bench ssm --json ssm.json", "robonav bench ssm --layers mamba3 gru --threads 2"]
    args = parse(SsmArgs, argv, "robonav bench ssm", BENCHMARKS["ssm"][1], examples)
    for name, value in (("--threads", args.threads), ("--rounds", args.rounds)):
        if value < 1:
            raise UsageError(explain(name, "at least 1", value))
    from robonav.ssm.measure.speed import measure_speed

    return finish(measure_speed(args.layers, args.threads, args.rounds, report=_say), args.json)


def _memory(argv: list[str]) -> int:
    examples = ["robonav bench memory --json memory.json", "robonav bench memory --tasks parity --layers mamba2 mamba3"]
    args = parse(MemoryArgs, argv, "robonav bench memory", BENCHMARKS["memory"][1], examples)
    from robonav.ssm.measure.memory import measure_memory

    def report(line: str, figures: dict[str, Any]) -> None:
        _say(line)
        if args.json is not None:
            write_json_atomic(args.json, figures)

    known = earlier(args.json)
    if known is not None and not {"tasks", "budget"} <= set(known):
        raise UsageError(explain("--json", "figures of bench memory, or no file yet", f"{args.json}", "remove it"))
    tasks, layers = args.tasks or None, args.layers or None
    return finish(measure_memory(args.budget, tasks, layers, args.seed, report, known), args.json)


# Word to the function that runs it, and its summary.
BENCHMARKS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "sim": (_sim, "Measures the simulator's steps a second in each fidelity and on all cores, and where time goes."),
    "gait": (_gait, "Walks each robot through a grid of commands: errors, falls, speed, the lag that it shows."),
    "nav": (bench_nav.nav, bench_nav.NAV_SUMMARY),
    "train": (bench_train.train, bench_train.SUMMARY),
    "worldmodel": (bench_worldmodel.worldmodel, bench_worldmodel.WORLDMODEL_SUMMARY),
    "log": (bench_log.log, bench_log.SUMMARY),
    "loop": (bench_loop.loop, bench_loop.SUMMARY),
    "ssm": (_ssm, "Measures each sequence layer: training speed, step latency, state, cost of a history."),
    "memory": (_memory, "Trains small probes that show what each sequence layer can remember and track."),
}


def usage() -> str:
    """The text of ``robonav bench --help``."""
    rows = "\n".join(f"  {name:<10} {summary}" for name, (_, summary) in BENCHMARKS.items())
    return f"""usage: robonav bench BENCHMARK [OPTIONS]

Measures on this machine; close other programs first.

benchmarks:
{rows}

options:
  -h, --help  show this, or a benchmark's own help: robonav bench BENCHMARK --help

examples:
  robonav bench sim --json sim.json
  robonav bench ssm --json ssm.json
"""


def main(argv: list[str]) -> int:
    """Measures, prints the figures as JSON, and returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if argv else 2
    if argv[0] not in BENCHMARKS:
        raise UsageError(explain("bench", "a benchmark", f"'{argv[0]}'", nearest(argv[0], BENCHMARKS)))
    return BENCHMARKS[argv[0]][0](argv[1:])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
