"""``robonav tune``: searches a baseline's parameters on development scenes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robonav.cli.args import UsageError, parse
from robonav.cli.evaluate import EnvFactory
from robonav.cli.figures import earlier
from robonav.config import find_config, from_mapping, load_config, load_robot, to_mapping
from robonav.errors import ConfigError, explain
from robonav.files import require_writable, write_json_atomic, write_text_atomic

if TYPE_CHECKING:
    from robonav.types import Policy, RobotSpec

TUNING_SEED = 29_999  # run seed of development scenes, apart from those of any table
SUMMARY = "Searches a baseline's parameters on development scenes."


@dataclass(frozen=True)
class TuneArgs:
    """Arguments of ``robonav tune``."""

    search: str
    """What is searched: a preset of configs/tuning, or the path of a .toml file."""
    trials: int | None = None
    """Number of trials; by default the search's own."""
    episodes: int | None = None
    """Episodes of each suite a trial; by default the search's own."""
    seed: int = 0
    """Of the draws."""
    robot: str = "a1"
    """A preset of configs/robots, or the path of a .toml file."""
    workers: int | None = None
    """Worker processes; by default one for each core."""
    delay_ms: float = 0.0
    """How late every command takes effect, as in bench nav."""
    json: Path | None = None
    """File for all trials, saved as they come; those of the same search that it holds are not run again."""
    out: Path | None = None
    """Write the best values as a preset here (.toml)."""


def main(argv: list[str]) -> int:
    """Runs the search, prints the trials, and writes the best.

    Raises:
        RobonavError: bad arguments or files.
    """
    examples = ["robonav tune --json trials.json --search dwa-tracking --out dwa-tuned.toml"]
    args = parse(TuneArgs, argv, "robonav tune", SUMMARY, examples)
    from policies.baselines import BaselineConfig, load_baseline
    from robonav.evaluation import tuning
    from robonav.evaluation.runner import evaluate
    from robonav.evaluation.suites import episode_seeds, load_suite

    search = load_config(tuning.TuningConfig, find_config("tuning", args.search))
    search = replace(
        search,
        trials=search.trials if args.trials is None else args.trials,
        episodes=search.episodes if args.episodes is None else args.episodes,
    )
    if args.workers is not None and args.workers < 1:
        raise UsageError(explain("--workers", "at least 1", args.workers))
    require_writable(args.json, args.out)
    if not 0 <= args.delay_ms < 1e4:
        raise UsageError(explain("--delay-ms", "0 or more milliseconds", args.delay_ms))
    spec = load_robot(args.robot)
    base = load_baseline(search.policy)
    table = to_mapping(base)
    suites = {name: load_suite(name) for name in search.suites}
    seeds = episode_seeds(TUNING_SEED, search.episodes)

    settings = {"search": to_mapping(search), "seed": args.seed, "robot": args.robot, "delay_ms": args.delay_ms}

    def config_of(values: Mapping[str, Any]) -> BaselineConfig:
        where = f"search '{args.search}'"
        return from_mapping(BaselineConfig, {**table, base.method: {**table[base.method], **values}}, where)

    def measure(values: Mapping[str, Any]) -> dict[str, Any]:
        make_policy = BaselineFactory(config_of(values), spec, search.policy)
        began = time.monotonic()
        figures: dict[str, Any] = {}
        for name, suite in suites.items():
            make_env = EnvFactory(suite.scene, args.robot, {**suite.env, "latency_s": args.delay_ms / 1e3})
            episodes = evaluate(make_env, make_policy, seeds, spec, args.workers)
            figures[name] = sum(e.outcome == "success" for e in episodes) / len(episodes)
            figures.setdefault("score", 0.0)
            figures["score"] += tuning.score(episodes, spec) / len(suites)
        return {**figures, "seconds": round(time.monotonic() - began, 1)}

    start = {key: table[base.method].get(key) for key in search.ranges}
    unknown = [key for key, value in start.items() if value is None]
    if unknown:
        raise ConfigError(explain(f"search '{args.search}': ranges", f"parameters of {base.method}", unknown[0]))
    known = _known(args.json, settings)

    def figures_of(values: Mapping[str, Any]) -> dict[str, Any]:
        key = _key(values)
        if key not in known:
            known[key] = measure(values)
        return known[key]

    trials = []
    for figures in tuning.search(search, start, figures_of, args.seed):
        trials.append(figures)
        print(json.dumps(figures), file=sys.stderr, flush=True)
        if args.json is not None:
            write_json_atomic(args.json, {**settings, "trials": trials})
    best = max(trials, key=lambda figures: float(figures["score"]))
    print(json.dumps(best, indent=2))
    if args.out is not None:
        write_text_atomic(args.out, _preset(base, {**_changed(base), **best["values"]}, args.search, len(trials)))
    return 0


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _known(file: Path | None, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of the trials that an earlier call left in this file, by their values.

    Raises:
        UsageError: the file holds something else, or another search.
    """
    data = earlier(file)
    if data is None:
        return {}
    try:
        known = {_key(trial["values"]): trial for trial in data["trials"]}
    except (TypeError, KeyError):
        raise UsageError(
            explain("--json", "trials of an earlier call, or no file yet", f"{file}", "remove it")
        ) from None
    other = [key for key, value in settings.items() if data.get(key) != value]
    if other:
        raise UsageError(
            explain(f"--json {file}: {other[0]}", settings[other[0]], data.get(other[0]), "take another file")
        )
    return known


@dataclass(frozen=True)
class BaselineFactory:
    """Makes a baseline inside a worker process."""

    config: Any
    spec: RobotSpec
    name: str

    def __call__(self) -> Policy:
        """A new policy."""
        policy: Policy = self.config.policy(self.spec, self.name)
        return policy


def _changed(base: Any) -> dict[str, Any]:
    """What a preset sets apart from the method's defaults."""
    table = to_mapping(getattr(base, base.method))
    default = to_mapping(type(getattr(base, base.method))())
    return {key: value for key, value in table.items() if value != default[key]}


def _preset(base: Any, values: Mapping[str, Any], search: str, trials: int) -> str:
    lines = [f"# Best of {trials} trials of robonav tune --search {search}."]
    lines += [f"description = {json.dumps(f'{base.description}, tuned')}", f'method = "{base.method}"']
    return "\n".join([*lines, *_table_lines(base.method, values)]) + "\n"


def _table_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """A TOML table, and those in it; a key without a value is left out, since TOML has no null."""
    plain = {key: value for key, value in values.items() if not isinstance(value, dict) and value is not None}
    lines = ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for key, inner in values.items():
        if isinstance(inner, dict):
            lines += _table_lines(f"{name}.{key}", inner)
    return lines
