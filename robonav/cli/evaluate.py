"""``robonav evaluate``: measures a policy on a suite of scenes."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robonav.cli.args import comma_ints, parse
from robonav.config import load_robot
from robonav.errors import ConfigError, RobonavError, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from robonav.evaluation.barn import Trial as BarnTrial
    from robonav.evaluation.runner import Recording, Trial
    from robonav.evaluation.suites import SuiteConfig
    from robonav.types import Policy, RobotSpec, Scene

EXAMPLES = [
    "robonav evaluate --policy astar --suite rooms --episodes 200 --seed 7 --json out.json",
    "robonav evaluate --policy runs/quick --suite rooms --planner mppi --picture trajectories.png",
    "robonav evaluate --policy runs/quick --suite crowd --log-failures failures",
    "robonav evaluate --policy astar --suite barn --barn-dir barn --worlds 1-5 --trials 2 --barn-out barn.txt",
]
VIDEO_EPISODES = 3
BARN_START_GRACE_S = 5.0  # the environment's clock starts before BARN's, which waits for the robot to move


@dataclass(frozen=True)
class EvaluateArgs:
    """Arguments of ``robonav evaluate``."""

    policy: str
    """A baseline's name (astar, dwa-tracking, geometry), a run folder or checkpoint, or a bundle folder."""
    suite: str = "rooms"
    """Scenes: a preset of configs/suites, or the path of a .toml file."""
    episodes: int | None = None
    """Number of episodes; by default the suite's. Not for BARN, which has --worlds and --trials."""
    seed: int = 0
    """Number of the run. The same seed gives every policy the same scenes."""
    json: Path | None = None
    """Write the summary here."""
    planner: Literal["actor", "mppi"] | None = None
    """How a learned policy decides."""
    robot: str = "a1"
    """A preset of configs/robots, or the path of a .toml file."""
    workers: int | None = None
    """Worker processes; by default one for each core."""
    picture: Path | None = None
    """Draw trajectories over their scenes here, failures first (.png, .pdf, .svg)."""
    video: Path | None = None
    """Film the first episodes here (.mp4 or .gif)."""
    log_failures: Path | None = None
    """Folder that keeps a log of each failed episode, in the format of robonav run's."""
    barn_dir: Path | None = None
    """Folder of the BARN dataset."""
    worlds: str | None = None
    """BARN worlds, as in 1,2,5-7; by default all that are in the folder."""
    trials: int | None = None
    """Trials of each BARN world; by default 1."""
    barn_out: Path | None = None
    """Write BARN's public report here: world_idx succeeded collided timeout time score."""


@dataclass(frozen=True)
class EnvFactory:
    """Makes the environment inside a worker process."""

    scene: str
    robot: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        """A new environment without policy inputs, since policies here read raw observations."""
        import sim

        return sim.make_env(scene=self.scene, robot=self.robot, **{"policy_input": False, **self.options})


@dataclass(frozen=True)
class PolicyFactory:
    """Makes the policy inside a worker process; a learned one is loaded there from its path."""

    name: str
    spec: RobotSpec
    planner: str | None

    def __call__(self) -> Policy:
        """A new policy."""
        from policies.registry import make_policy

        return make_policy(self.name, self.spec, **({} if self.planner is None else {"planner": self.planner}))


def main(argv: list[str]) -> int:
    """Runs the command; 0 when the evaluation ran, whatever its figures.

    Raises:
        RobonavError: bad arguments, files, policy or suite; all that can be is checked before the first episode.
    """
    description = "Measures a policy on a suite of scenes: success, collision and timeout rates with 95 % intervals."
    args = parse(EvaluateArgs, argv, "robonav evaluate", description, EXAMPLES)
    from robonav.evaluation import report
    from robonav.evaluation.runner import run_trials
    from robonav.evaluation.suites import load_suite

    suite = load_suite(args.suite)
    _check_flags(args, suite)
    _check_outputs(args)
    spec = load_robot(args.robot)
    make_env, make_policy = (
        EnvFactory(suite.scene, args.robot, suite.env),
        PolicyFactory(args.policy, spec, args.planner),
    )
    worlds, trials = _barn_trials(args, spec) if suite.kind == "barn" else ([], _scene_trials(args, suite, spec))
    make_policy()  # an unknown or damaged policy is told before anything starts
    recordings = run_trials(make_env, make_policy, trials, args.workers, progress=True)
    barn_trials: list[BarnTrial] | None = None
    if suite.kind == "barn":
        recordings, barn_trials = _judge(args, recordings, worlds)
    episodes = [r.episode for r in recordings]
    summary = report.summarise(args.policy, Path(args.suite).stem, args.seed, episodes, barn_trials)
    print(report.table(summary))
    _write(args, spec, summary, recordings, barn_trials)
    return 0


def _check_flags(args: EvaluateArgs, suite: SuiteConfig) -> None:
    if args.workers is not None and args.workers < 1:
        raise ConfigError(explain("--workers", "at least 1", args.workers))
    if suite.kind == "barn":
        if args.barn_dir is None:
            raise ConfigError(f"--suite {args.suite}: needs the dataset; add --barn-dir DIR")
        if args.episodes is not None:
            raise ConfigError(f"--episodes: not for suite '{args.suite}'; use --worlds and --trials")
        return
    for flag in ("barn_dir", "worlds", "trials", "barn_out"):
        if getattr(args, flag) is not None:
            raise ConfigError(
                f"--{flag.replace('_', '-')}: only for BARN, not for suite '{args.suite}'; add --suite barn"
            )


def _check_outputs(args: EvaluateArgs) -> None:
    """Refuses, before the run, every output that could not be written after it."""
    for flag, suffixes in (
        ("json", ()),
        ("barn_out", ()),
        ("picture", (".png", ".pdf", ".svg")),
        ("video", (".mp4", ".gif")),
        ("log_failures", ()),
    ):
        path: Path | None = getattr(args, flag)
        if path is None:
            continue
        where = f"--{flag.replace('_', '-')}"
        if suffixes and path.suffix.lower() not in suffixes:
            raise ConfigError(explain(where, f"a path that ends in {' or '.join(suffixes)}", f"'{path}'"))
        if flag == "log_failures":
            if path.exists() and not path.is_dir():
                raise ConfigError(explain(where, "a folder", f"the file '{path}'", "choose another name"))
        elif path.exists() and not path.is_file():
            raise ConfigError(explain(where, "a file", f"the folder or device '{path}'", "add a file name"))
        folder = next(p for p in path.absolute().parents if p.exists())
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise RobonavError(
                f"{where}: cannot write '{path}' ({os.strerror(error.errno or 0)}); choose another path"
            ) from None
    if args.picture is not None:
        import matplotlib  # noqa: F401  (a missing package is told now, not after the run)
    if args.video is not None and args.video.suffix.lower() == ".gif":
        import PIL.Image  # noqa: F401


def _scene_trials(args: EvaluateArgs, suite: SuiteConfig, spec: RobotSpec) -> list[Trial]:
    from robonav.evaluation.runner import EpisodeOptions, Trial
    from robonav.evaluation.suites import episode_seeds

    seeds = episode_seeds(args.seed, suite.episodes if args.episodes is None else args.episodes)
    filmed = VIDEO_EPISODES if args.video else 0
    keep = args.log_failures is not None
    return [
        Trial(seed, EpisodeOptions(spec, keep_scans=i < filmed, keep_failures=keep)) for i, seed in enumerate(seeds)
    ]


def _barn_trials(args: EvaluateArgs, spec: RobotSpec) -> tuple[list[int], list[Trial]]:
    """The world of each trial, and the trials."""
    from robonav.evaluation import barn
    from robonav.evaluation.runner import EpisodeOptions, Trial
    from robonav.evaluation.suites import trial_seeds

    if args.barn_dir is None:
        raise ConfigError("--barn-dir: is missing; add it")
    wanted = None if args.worlds is None else comma_ints(args.worlds, "--worlds")
    chosen = barn.choose_worlds(args.barn_dir, wanted)
    per_world = 1 if args.trials is None else args.trials
    worlds: list[int] = []
    trials: list[Trial] = []
    for world in chosen:
        seeds = trial_seeds(args.seed, world, per_world)
        barn.load_reference_length(args.barn_dir, world)  # a damaged file is told now
        scene = _load_barn_scene(barn.grid_path(args.barn_dir, world), spec)
        for seed in seeds:
            filmed = args.video is not None and len(trials) < VIDEO_EPISODES
            options = EpisodeOptions(spec, scene, filmed, args.log_failures is not None)
            trials.append(Trial(seed, options))
            worlds.append(world)
    return worlds, trials


def _load_barn_scene(grid: Path, spec: RobotSpec) -> Scene:
    import sim
    from robonav.evaluation.barn import TIME_LIMIT_S

    scene = sim.load_scene(str(grid), spec).scene(0)
    return replace(scene, time_limit_s=TIME_LIMIT_S + BARN_START_GRACE_S)


def _judge(
    args: EvaluateArgs, recordings: Sequence[Recording], worlds: Sequence[int]
) -> tuple[list[Recording], list[BarnTrial]]:
    """Recordings on BARN's clock, and the lines of its report."""
    from robonav.evaluation import barn

    folder = args.barn_dir or Path()
    judged = [replace(r, episode=barn.judge(r.episode)) for r in recordings]
    lengths = {world: barn.load_reference_length(folder, world) for world in set(worlds)}
    return judged, [barn.trial(w, r.episode, lengths[w]) for w, r in zip(worlds, judged, strict=True)]


def _write(
    args: EvaluateArgs,
    spec: RobotSpec,
    summary: dict[str, Any],
    recordings: Sequence[Recording],
    barn_trials: Sequence[BarnTrial] | None,
) -> None:
    from robonav.evaluation import barn, pictures, video
    from robonav.files import write_json_atomic, write_text_atomic

    if args.json is not None:
        write_json_atomic(args.json, summary)
    if args.barn_out is not None:
        write_text_atomic(args.barn_out, barn.report_lines(barn_trials or ()))
    if args.picture is not None:
        rate = summary["success"]["rate"]
        title = f"{summary['policy']} on {summary['suite']}: success {rate:.2f} of {summary['episodes']} episodes"
        pictures.draw_page(recordings, spec, title, args.picture)
        print(f"picture: {args.picture}")
    if args.log_failures is not None:
        from robonav.cli.failure_logs import write_failures

        count = write_failures(args.log_failures, recordings, args.policy, args.planner, spec)
        print(f"logs of failed episodes: {count} in {args.log_failures}")
    if args.video is not None:
        video.write_video(recordings[:VIDEO_EPISODES], spec, args.video)
        print(f"video: {args.video}")
