"""``robonav bench worldmodel``: how far a world model's decoding, dreams and state can be trusted."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robonav.cli.args import UsageError, parse
from robonav.cli.trained import trained
from robonav.config import find_config, load_robot
from robonav.errors import explain
from robonav.files import write_json_atomic, write_text_atomic

if TYPE_CHECKING:
    from robonav.evaluation.worldmodel.episodes import Driver, Recorded, Truth
    from robonav.evaluation.worldmodel.measure import MeasureConfig
    from robonav.learning.checkpoint import Checkpoint
    from robonav.learning.streams import Arrays, Coming, Moved
    from robonav.types import Observation, Policy, RobotSpec

WORLDMODEL_SUMMARY = "Measures world models: decoding, open-loop error, collisions foreseen, returns, what is known."
WORLDS = 16
SENSORS = "real"  # preset of configs/sensors, wherever something is randomised
EXAMPLES = [
    "robonav bench worldmodel --json wm.json --checkpoints runs/general runs/gru --html wm.html --video wm.mp4",
    "robonav bench worldmodel --checkpoints runs/quick --scenes rooms --episodes 10 --randomisation off",
]


@dataclass(frozen=True)
class WorldModelArgs:
    """Arguments of ``robonav bench worldmodel``."""

    checkpoints: tuple[str, ...] = ("runs/general",)
    """Run folders, checkpoint files, or bundles that keep their weights. All see the same episodes; others are compared
    with the first."""
    scenes: str = "rooms,dense,crowd-dense"
    """Presets of configs/scenes, with commas."""
    episodes: int = 40
    """Episodes of each scene and randomisation."""
    randomisation: str = "off,sim2real,beyond"
    """Presets of configs/randomisation, with commas: what the tests differ in. Pictures and probes are of the first."""
    drivers: str = "actor,actor,actor,random"
    """Who drives, episode by episode in turn, with commas: actor (of the first checkpoint, with noise), random (smooth
    commands), or a baseline's name."""
    noise: float = 1.0
    """Noise on the actor's actions, in its own standard deviations."""
    horizon: int = 20
    """Steps of a dream."""
    samples: int = 4
    """Dreams from each start, whose mean is the forecast."""
    seed: int = 0
    """Number of the run; its episodes are none that training ever draws."""
    robot: str = "a1"
    """A preset of configs/robots, or the path of a .toml file."""
    probes: bool = True
    """Whether linear probes are fitted as well; they take about as long as the rest."""
    json: Path | None = None
    """File for the figures, saved as they come."""
    html: Path | None = None
    """Write a page with curves, tables and pictures here."""
    video: Path | None = None
    """Film of dreams beside what followed, of the first checkpoint (.mp4 or .gif)."""


def worldmodel(argv: list[str]) -> int:
    """Runs the benchmark; 0 when it ran, whatever the figures.

    Raises:
        RobonavError: bad arguments, checkpoints or scenes; all of them are loaded before the first episode.
    """
    args = parse(WorldModelArgs, argv, "robonav bench worldmodel", WORLDMODEL_SUMMARY, EXAMPLES)
    from robonav.evaluation.suites import episode_seeds

    seeds = episode_seeds(args.seed, args.episodes)  # numbers that cannot be are told now
    scenes, presets = _names(args.scenes, "--scenes"), _names(args.randomisation, "--randomisation")
    drivers = _names(args.drivers, "--drivers", different=False)
    for folder, names in (("scenes", scenes), ("randomisation", presets)):
        for name in names:
            find_config(folder, name)
    if not 0 <= args.noise <= 10:
        raise UsageError(explain("--noise", "a number from 0 to 10", args.noise))
    if not 5 <= args.horizon <= 100:
        raise UsageError(explain("--horizon", "a number from 5 to 100", args.horizon))
    if not 1 <= args.samples <= 100:
        raise UsageError(explain("--samples", "a number from 1 to 100", args.samples))
    for flag, path in (("--json", args.json), ("--html", args.html), ("--video", args.video)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(explain(flag, "a path in a folder that exists", f"'{path}'"))
    if args.video is not None and args.video.suffix.lower() not in (".mp4", ".gif"):
        raise UsageError(explain("--video", "a path that ends in .mp4 or .gif", f"'{args.video}'"))
    spec = load_robot(args.robot)
    checkpoints = _load(args.checkpoints, spec)
    _check_drivers(drivers, spec)
    from robonav.evaluation.worldmodel.measure import MeasureConfig

    config = MeasureConfig(args.horizon, args.samples, return_steps=min(15, args.horizon), seed=args.seed)
    figures = _empty(args, checkpoints, spec, config)
    kept: dict[str, Any] = {"pictures": {}, "film": []}
    first = next(iter(checkpoints.values()))
    for name, checkpoint in checkpoints.items():
        if checkpoint.situation.sight != first.situation.sight:
            _say(f"robonav: warning: {name} reads another sight's velocities than those it was trained on")
    for preset in presets:
        _say(f"{preset}: {len(scenes) * len(seeds)} episodes")
        episodes = _gather(first, spec, scenes, preset, drivers, seeds, args)
        _measure(figures, kept, checkpoints, episodes, preset, spec, config, args)
        if args.json is not None:
            write_json_atomic(args.json, figures)
    _finish(figures, kept, spec, args)
    return 0


def _names(text: str, flag: str, different: bool = True) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or (different and len(set(names)) < len(names)):
        raise UsageError(explain(flag, "different names with commas between", f"'{text}'"))
    return names


def _load(paths: Sequence[str], spec: RobotSpec) -> dict[str, Checkpoint]:
    """The checkpoints, which all have to fit the robot's sensors."""
    from policies.same_robot import check_same_robot
    from robonav.errors import CheckpointError

    if not paths or len(set(paths)) < len(paths):
        raise UsageError(explain("--checkpoints", "different run folders or files", f"'{' '.join(paths)}'"))
    found = {}
    for path in paths:
        checkpoint = found[path] = trained(path)
        told = checkpoint.agent.config.model.encoder.robot
        check_same_robot(checkpoint.spec, spec, f"checkpoint {path}", CheckpointError, told)
    return found


def _check_drivers(names: Sequence[str], spec: RobotSpec) -> None:
    for name in set(names) - {"actor", "random"}:
        _baseline(name, spec)


def _baseline(name: str, spec: RobotSpec) -> Policy:
    from policies.registry import make_policy

    return make_policy(name, spec)


def _empty(
    args: WorldModelArgs, checkpoints: dict[str, Checkpoint], spec: RobotSpec, config: MeasureConfig
) -> dict[str, Any]:
    from robonav.config import to_mapping

    settings = {"scenes": args.scenes, "episodes": args.episodes, "drivers": args.drivers, "noise": args.noise}
    settings |= {
        "sight": next(iter(checkpoints.values())).situation.sight,
        "robot": args.robot,
        "dt_s": spec.dt_s,
        **to_mapping(config),
    }
    entries = {name: {"info": _info(name, c), "presets": {}} for name, c in checkpoints.items()}
    return {"settings": settings, "data": {}, "trivial": {}, "checkpoints": entries}


def _info(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint is."""
    model = checkpoint.agent.model
    return {
        "pattern": model.config.backbone.pattern,
        "objective": model.config.objective,
        "world_model_parameters": sum(p.numel() for p in model.parameters()),
        "trained_with": _trained_with(name, checkpoint),
        **{key: value for key, value in checkpoint.info.items() if isinstance(value, (int, float, str))},
    }


def _trained_with(name: str, checkpoint: Checkpoint) -> str:
    """The randomisation of a run, as far as the weights or the folder beside them tell."""
    from robonav.learning.checkpoint import NOT_KNOWN, randomisation_of

    if "randomisation" in checkpoint.info:
        return str(checkpoint.info["randomisation"])
    try:  # weights of an earlier version
        return randomisation_of(json.loads((Path(name) / "config.json").read_text()).get("collect", {}))
    except (OSError, ValueError):
        return NOT_KNOWN


def _gather(
    checkpoint: Checkpoint,
    spec: RobotSpec,
    scenes: Sequence[str],
    preset: str,
    drivers: Sequence[str],
    seeds: Sequence[int],
    args: WorldModelArgs,
) -> list[Recorded]:
    from tqdm import tqdm

    from robonav.evaluation.worldmodel.drivers import ActorDriver, PolicyDriver, RandomDriver
    from robonav.evaluation.worldmodel.episodes import gather, plan_episodes

    plans = plan_episodes(seeds, scenes, drivers, preset)
    worlds = min(WORLDS, len(plans))
    streams = AnalyticWorlds(worlds, scenes, args.robot, preset, checkpoint.situation.sight)
    made: dict[str, Driver] = {}
    for name in dict.fromkeys(drivers):
        if name == "actor":
            made[name] = ActorDriver(checkpoint.agent, worlds, args.noise)
        elif name == "random":
            made[name] = RandomDriver(worlds)
        else:
            made[name] = PolicyDriver(functools.partial(_baseline, name), streams, worlds)
    try:
        with tqdm(total=len(plans), unit="episode", file=sys.stderr) as bar:
            return gather(streams, worlds, plans, made, bar.update)
    finally:
        streams.close()


def _measure(
    figures: dict[str, Any],
    kept: dict[str, Any],
    checkpoints: dict[str, Checkpoint],
    episodes: Sequence[Recorded],
    preset: str,
    spec: RobotSpec,
    config: MeasureConfig,
    args: WorldModelArgs,
) -> None:
    """Adds the figures of a randomisation; with the first one also probes, comparisons and pictures."""
    from robonav.evaluation.worldmodel import measure, outcomes, probes

    leading = not figures["data"]
    data = measure.prepare(episodes, spec, config)
    figures["data"][preset], figures["trivial"][preset] = data.figures, data.trivial
    first = None
    for name, checkpoint in checkpoints.items():
        _say(f"{preset}: {name}")
        measured = measure.measure(checkpoint.agent, data, config)
        entry = figures["checkpoints"][name]
        entry["presets"][preset] = measured.figures
        if not leading:
            continue
        entry["gates"] = measure.gates(measured.figures)
        entry["probes"] = probes.measure(checkpoint.agent, episodes, spec) if args.probes else None
        first = measured if first is None else first
        if measured is not first and measured.scan_errors is not None and first.scan_errors is not None:
            found = outcomes.paired_difference(first.scan_errors, measured.scan_errors, data.starts.episode)
            figures.setdefault("compared_with_the_first", {})[name] = found
        if args.html is not None or args.video is not None:
            from robonav.evaluation.worldmodel import pictures

            examples = pictures.choose_examples(checkpoint.agent, data, measured)
            kept["pictures"][name] = [(e.title, pictures.strip(e, spec)) for e in examples]
            kept["film"] = kept["film"] or examples


def _finish(figures: dict[str, Any], kept: dict[str, Any], spec: RobotSpec, args: WorldModelArgs) -> None:
    from robonav.evaluation.worldmodel import page, pictures, tables

    print("\n\n".join(table.text() for table in tables.tables_of(figures)))
    if args.html is not None:
        write_text_atomic(args.html, page.page(figures, kept["pictures"]))
        print(f"page: {args.html}")
    if args.video is not None and kept["film"]:
        pictures.write_film(kept["film"], spec, args.video)
        print(f"video: {args.video}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class AnalyticWorlds:
    """Analytic worlds of one robot as `robonav.evaluation.worldmodel.episodes.TrueStreams`.

    Sensors are perfect where nothing is randomised, and those of the preset "real" elsewhere.
    """

    def __init__(self, count: int, scenes: Sequence[str], robot: str, randomisation: str, sight: str) -> None:
        from sim.analytic.env import AnalyticVectorEnv
        from sim.randomisation import load_randomisation

        off = load_randomisation(randomisation).is_off
        errors: dict[str, Any] = {} if off else {"sensors": SENSORS, "randomisation": randomisation}
        self._env = AnalyticVectorEnv(count, scene=tuple(scenes), robot=robot, copy=False, sight=sight, **errors)
        self._count = count
        self._now: Arrays = {}
        self._ended = np.ones(count, np.bool_)

    def begin(self, world: int, coming: Coming) -> None:
        """See `Streams.begin`."""
        self._env.announce(world, coming.seed, coming.scene, coming.randomisation)

    def restart(self) -> None:
        """See `Streams.restart`."""
        self._now = self._env.reset()[0]
        self._ended[:] = False

    def observations(self) -> Arrays:
        """See `Streams.observations`."""
        return self._now

    def observation(self, world: int) -> Observation:
        """See `Streams.observation`."""
        return self._env.observation(world)

    def robot(self, world: int) -> RobotSpec:
        """See `Streams.robot`."""
        return self._env.robot

    def step(self, actions: NDArray[np.float32]) -> Moved:
        """See `Streams.step`."""
        from robonav.learning.streams import Moved

        first = self._ended.copy()
        self._now, reward, terminated, truncated, infos = self._env.step(actions)
        told = infos.get("outcome", [None] * self._count)
        self._ended = terminated | truncated
        outcomes = [told[i] if self._ended[i] else None for i in range(self._count)]
        events = np.zeros(self._count, np.uint8)
        return Moved(reward.astype(np.float32), first, terminated, truncated, events, outcomes)

    def truth(self) -> Truth:
        """See `TrueStreams.truth`; doors do not count as movers."""
        from robonav.evaluation.worldmodel.episodes import MOVER_SIZE, Truth

        worlds = self._env.worlds
        state = worlds.mover_state
        movers = np.zeros((self._count, 0 if state is None else state.shape[1], MOVER_SIZE), np.float32)
        for world in range(self._count if state is not None else 0):
            scene = worlds.scenes[world]
            for m, mover in enumerate(scene.movers if scene is not None else ()):
                if state is not None and mover.kind != "door":
                    now = state[world, m]
                    movers[world, m] = now["x"], now["y"], now["vx"], now["vy"], mover.circle_m
        pose, velocity = (array.astype(np.float32) for array in worlds.state[:2])
        return Truth(pose, velocity, worlds.scan(), movers)

    def close(self) -> None:
        """See `Streams.close`."""
        self._env.close()
