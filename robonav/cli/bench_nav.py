"""``robonav bench nav``: policies against each other on the same episodes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robonav.cli.args import UsageError, parse
from robonav.cli.evaluate import EnvFactory, PolicyFactory
from robonav.cli.figures import earlier
from robonav.config import load_robot
from robonav.errors import explain
from robonav.files import require_writable, write_json_atomic, write_text_atomic

if TYPE_CHECKING:
    from robonav.evaluation.runner import Recording
    from robonav.evaluation.suites import SuiteConfig
    from robonav.types import RobotSpec

CHUNK = 20  # episodes between two savings
PROBE_EPISODES = 2
PROBE_SEED = 29_998
PICTURED = 12
NAV_SUMMARY = "Runs policies against each other on the same episodes of suites of scenes."


@dataclass(frozen=True)
class NavArgs:
    """Arguments of ``robonav bench nav``."""

    suite: tuple[str, ...] = ("rooms",)
    """Suites: presets of configs/suites, or .toml files."""
    policies: str = "astar,dwa,dwa-tracking,mppi"
    """Policies, with commas: baselines, bundles, run folders; PATH@mppi plans with a run folder. Others are compared
    with the first."""
    episodes: int = 100
    """Episodes of each suite and policy."""
    seed: int = 0
    """Number of the run. The same seed gives every policy the same scenes."""
    robot: str = "a1"
    """A preset of configs/robots, or the path of a .toml file."""
    delay_ms: float | None = None
    """How late every command takes effect; by default each policy's own time for a decision (90 % of them), measured
    first. 0 charges nothing."""
    workers: int | None = None
    """Worker processes; by default one for each core."""
    json: Path | None = None
    """File for rows and figures, saved as they come; what it holds is not run again."""
    html: Path | None = None
    """Write a page with tables and trajectories here."""


def nav(argv: list[str]) -> int:
    """Runs the benchmark; 0 when it ran, whatever the figures.

    Raises:
        RobonavError: bad arguments, suites or policies; all of them are loaded before the first episode.
    """
    examples = [
        "robonav bench nav --json crowd.json --suite crowd --policies dwa-tracking,dwa,mppi,astar --episodes 500",
        "robonav bench nav --suite rooms dense --policies quick,astar --html nav.html",
    ]
    args = parse(NavArgs, argv, "robonav bench nav", NAV_SUMMARY, examples)
    from policies.registry import fingerprint
    from robonav.evaluation import navbench
    from robonav.evaluation.suites import episode_seeds, load_suite

    episode_seeds(args.seed, args.episodes)  # numbers that cannot be are told now
    names = [name.strip() for name in args.policies.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(explain("--policies", "different names with commas between", f"'{args.policies}'"))
    if args.delay_ms is not None and not 0 <= args.delay_ms < 1e4:
        raise UsageError(explain("--delay-ms", "0 or more milliseconds", args.delay_ms))
    if args.workers is not None and args.workers < 1:
        raise UsageError(explain("--workers", "at least 1", args.workers))
    spec = load_robot(args.robot)
    suites = {Path(name).stem: load_suite(name) for name in args.suite}
    if not suites or len(suites) < len(args.suite):
        raise UsageError(explain("--suite", "one suite or more of different names", f"'{' '.join(args.suite)}'"))
    for name, suite in suites.items():
        if suite.kind != "scenes":
            raise UsageError(f"--suite {name}: worlds of BARN have their own clock and score; use robonav evaluate")
    for name in names:
        _policy(name, spec)()  # unknown or damaged ones are told before anything starts
    require_writable(args.json, args.html)
    found = earlier(args.json)
    new = navbench.new_file(args.seed, args.robot)
    data = new if found is None else navbench.check_file(found, args.seed, args.robot, str(args.json))
    contents = {name: fingerprint(name.partition("@")[0]) for name in names}
    delays_s = {name: _delay_s(name, next(iter(suites.values())), args, spec) for name in names}
    for suite_name, suite in suites.items():  # whatever does not fit is told before the first episode
        for name in names:
            _rows(data, suite_name, suite, name, delays_s[name], contents[name], args)
    for suite_name, suite in suites.items():
        for name in names:
            _run(data, suite_name, suite, name, args, spec)
    rows = {s: {n: data["suites"][s][n]["rows"][: args.episodes] for n in names} for s in suites}
    results = {s: {n: navbench.summary_of(r) for n, r in of.items()} for s, of in rows.items()}
    compared = {s: {n: navbench.paired(of[names[0]], of[n]) for n in names[1:]} for s, of in rows.items()}
    print(navbench.table_of(results))
    if args.json is not None:
        data |= {"results": results, "compared_with_the_first": compared}
        write_json_atomic(args.json, data)
    if args.html is not None:
        _write_page(args, spec, suites, names, data, rows, results, compared)
    return 0


def _policy(name: str, spec: RobotSpec) -> PolicyFactory:
    path, _, planner = name.partition("@")
    return PolicyFactory(path, spec, planner or None)


def _env(suite: SuiteConfig, robot: str, delay_s: float) -> EnvFactory:
    return EnvFactory(suite.scene, robot, {**suite.env, "latency_s": delay_s})


def _delay_s(name: str, suite: SuiteConfig, args: NavArgs, spec: RobotSpec) -> float:
    """How late the policy's commands come, in seconds to whole milliseconds; measured in this process, alone."""
    if args.delay_ms is not None:
        return args.delay_ms / 1e3
    import numpy as np

    from robonav.evaluation.runner import evaluate
    from robonav.evaluation.suites import episode_seeds

    seeds = episode_seeds(PROBE_SEED, PROBE_EPISODES)
    episodes = evaluate(_env(suite, args.robot, 0.0), _policy(name, spec), seeds, spec, workers=1)
    taken_ms = np.concatenate([e.decision_ms for e in episodes])
    return round(float(np.percentile(taken_ms, 90))) / 1e3


def _rows(
    data: dict[str, Any], suite_name: str, suite: SuiteConfig, name: str, delay_s: float, content: str, args: NavArgs
) -> None:
    """Makes room for a policy's rows in the file, or finds those of an earlier call."""
    from robonav.evaluation import navbench

    settings = {"scene": suite.scene, "env": suite.env}
    navbench.rows_in(data, suite_name, name, settings, delay_s * 1e3, content, args.delay_ms is not None)


def _run(data: dict[str, Any], suite_name: str, suite: SuiteConfig, name: str, args: NavArgs, spec: RobotSpec) -> None:
    """The episodes that the file does not hold yet."""
    from robonav.evaluation import navbench
    from robonav.evaluation.runner import EpisodeOptions, Trial, run_trials
    from robonav.evaluation.suites import episode_seeds

    seeds = episode_seeds(args.seed, args.episodes)
    rows: list[dict[str, Any]] = data["suites"][suite_name][name]["rows"]
    chunk = CHUNK * max(1, args.workers or 2)
    while len(rows) < len(seeds):
        print(f"{suite_name}: {name}, {len(rows)} of {len(seeds)}", file=sys.stderr, flush=True)
        trials = [Trial(seed, EpisodeOptions(spec)) for seed in seeds[len(rows) : len(rows) + chunk]]
        delay = data["suites"][suite_name][name]["delay_ms"] / 1e3
        recordings = run_trials(_env(suite, args.robot, delay), _policy(name, spec), trials, args.workers, True)
        rows.extend(navbench.row_of(r.episode, spec) for r in recordings)
        if args.json is not None:
            write_json_atomic(args.json, data)


def _write_page(
    args: NavArgs,
    spec: RobotSpec,
    suites: Mapping[str, SuiteConfig],
    names: Sequence[str],
    data: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, list[dict[str, Any]]]],
    results: Mapping[str, Mapping[str, Any]],
    compared: Mapping[str, Mapping[str, Any]],
) -> None:
    from robonav.evaluation import navpage
    from robonav.evaluation.runner import EpisodeOptions, Trial, run_trials

    order = ("collision", "timeout", "success")
    pictures: dict[tuple[str, str], bytes] = {}
    for suite_name, suite in suites.items():
        for name in names:
            first = sorted(rows[suite_name][name], key=lambda row: order.index(row["outcome"]))[:PICTURED]
            trials = [Trial(row["seed"], EpisodeOptions(spec)) for row in first]
            delay_s = data["suites"][suite_name][name]["delay_ms"] / 1e3  # that the rows were run with
            make_env, make_policy = _env(suite, args.robot, delay_s), _policy(name, spec)
            recordings: list[Recording] = run_trials(make_env, make_policy, trials, args.workers)
            pictures[suite_name, name] = navpage.picture_of(recordings, spec, f"{name} on {suite_name}")
    title = f"robonav bench nav: robot {Path(args.robot).stem}, seed {args.seed}"
    if args.html is not None:
        write_text_atomic(args.html, navpage.page(results, compared, pictures, title))
        print(f"page: {args.html}")
