"""Checks scenes by the thousand with other means than those that made them: shapes, ends, and a route of the footprint.

Each scene passes `sim.scene_check`; its start and, in 16 headings, its goal are free by exact geometry, and by PyBullet
where that is installed; and a route is shown free on the true shapes (`sim.witness`). Doors stand open for the route.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import sim
from robonav.errors import MissingDependencyError, SceneError
from robonav.types import RobotSpec, Scene
from sim.exact import footprint_gap_m, solids_of
from sim.generators.knob_draws import RANGES, drawn_knobs
from sim.scene_check import check_scene
from sim.witness import find_route

GOAL_HEADINGS = 16
FAILURES_SHOWN = 20
REFUSALS_MAX = 3  # a scene
PRESET_OF = {"crowd": "crowd-few"}  # where a kind's plain preset has another name
Make = Callable[[int], Scene]


@dataclass
class Family:
    """What came of the scenes of one preset, or of one kind with drawn knobs."""

    name: str
    scenes: int = 0
    crashes: int = 0
    refused: int = 0  # numbers for which the generator said that it finds no scene
    failures: list[str] = field(default_factory=list)
    made_ms: list[float] = field(default_factory=list)
    route_gap_m: list[float] = field(default_factory=list)
    start_gap_m: list[float] = field(default_factory=list)
    last: Scene | None = None
    unfit: str = ""  # why it gave no scene at all

    @property
    def trials(self) -> int:
        """Scenes, and what crashed instead of giving one."""
        return self.scenes + self.crashes

    def figures(self) -> dict[str, Any]:
        """As plain numbers."""
        return {
            "scenes": self.scenes,
            "crashes": self.crashes,
            "refused": self.refused,
            "failures": len(self.failures),
            "made_ms": round(float(np.mean(self.made_ms)), 2) if self.made_ms else 0.0,
            "made_ms_max": round(float(np.max(self.made_ms)), 2) if self.made_ms else 0.0,
            "start_gap_min_m": round(min(self.start_gap_m, default=0.0), 4),
            "route_gap_min_m": round(min(self.route_gap_m, default=0.0), 4),
        }


class Auditor:
    """Checks scenes of one robot, with a PyBullet world of its own if that is installed."""

    def __init__(self, spec: RobotSpec) -> None:
        """Looks for PyBullet."""
        self.spec = spec
        self.world: Any = None
        try:
            from sim.world import World

            self.world = World(spec)
        except MissingDependencyError:
            pass

    def close(self) -> None:
        """Lets PyBullet go; safe to call again."""
        if self.world is not None:
            self.world.close()

    def check(self, scene: Scene) -> tuple[float, float]:
        """The footprint's distance from the solids at the start, and the smallest along a route.

        Raises:
            SceneError: a shape or mover is unsound, the robot starts or ends in collision, or no route was found.
        """
        check_scene(scene, scene.name, self.spec)
        start, solids = np.array([scene.start]), solids_of(scene)
        start_gap_m = float(footprint_gap_m(solids, start, self.spec)[0])
        if start_gap_m <= 0.0:
            raise SceneError(f"{scene.name}: starts in collision at {_place(scene.start)}")
        yaws = np.linspace(0.0, math.pi, GOAL_HEADINGS, endpoint=False)
        ends = np.column_stack([np.broadcast_to(scene.goal, (GOAL_HEADINGS, 2)), yaws])
        if footprint_gap_m(solids, ends, self.spec).min() <= 0.0:
            raise SceneError(f"{scene.name}: ends in collision at {_place(scene.goal)}")
        found = find_route(scene, self.spec)
        if found is None:
            raise SceneError(f"{scene.name}: no route found from {_place(scene.start)} to {_place(scene.goal)}")
        if self.world is not None:
            self._check_with_bullet(scene, found[0][-1])
        return start_gap_m, found[1]

    def _check_with_bullet(self, scene: Scene, end: Any) -> None:
        self.world.load(scene)
        if self.world.collided:
            raise SceneError(f"{scene.name}: starts in collision at {_place(scene.start)}, says PyBullet")
        if scene.movers:  # which will be elsewhere by the time
            self.world.load(dataclasses.replace(scene, movers=()))
        self.world.place(*end)
        if self.world.collided:
            raise SceneError(f"{scene.name}: ends in collision at {_place(scene.goal)}, says PyBullet")


def families(names: Iterable[str], spec: RobotSpec, drawn: bool) -> tuple[list[tuple[str, Make]], dict[str, str]]:
    """Presets or files by name, and with `drawn` each kind of generator with knobs that are drawn from the number.

    With `drawn`, what this robot does not fit into is left out: the second result says why, by name.

    Raises:
        SceneError: without `drawn`, a scene that cannot be loaded or in which the task is impossible.
    """
    made: list[tuple[str, Make]] = []
    unfit: dict[str, str] = {}
    for name in names:
        try:
            made.append((name, sim.load_scene(name, spec).scene))
        except SceneError as error:
            if not drawn:
                raise
            unfit[name] = str(error)
    if drawn:
        made += [(f"{kind}, any knobs", _drawn(kind, spec)) for kind in RANGES]
    return made, unfit


def audit(
    sources: list[tuple[str, Make]], spec: RobotSpec, count: int, first_seed: int = 0, step: Callable[[], Any] = int
) -> dict[str, Any]:
    """Checks `count` scenes, the families in turn, and returns the figures; `step` is called after each scene.

    A number that a generator refuses with a clear message is counted apart, and the next one takes its place; three
    times as many refusals as scenes are a failure, and a family without any scene is left out as one that the robot
    does not fit into. A family that is one scene, whatever the number, is checked once.
    """
    out = [Family(name) for name, _ in sources]
    auditor = Auditor(spec)
    begin = time.perf_counter()
    turn = [(family, make) for family, (_, make) in zip(out, sources, strict=True)]
    seed = first_seed
    try:
        while turn and sum(f.trials for f in out) < count:
            for family, make in list(turn)[: count - sum(f.trials for f in out)]:
                before = family.trials
                if not _one(family, make, auditor, seed):
                    turn.remove((family, make))
                if family.trials > before:
                    step()
            seed += 1
    finally:
        auditor.close()
    return _figures(out, spec, auditor.world is not None, time.perf_counter() - begin)


def upper_bound_95(failures: int, trials: int) -> float:
    """One-sided upper 95 % bound of a rate (Clopper and Pearson, Biometrika 26, 1934); 3 / n without a failure."""
    if trials <= failures:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):
        p = (low + high) / 2
        log = [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(p) + (trials - k) * math.log1p(-p)
            for k in range(failures + 1)
        ]  # fmt: skip
        low, high = (p, high) if sum(map(math.exp, log)) > 0.05 else (low, p)
    return high


def _one(family: Family, make: Make, auditor: Auditor, seed: int) -> bool:
    """Makes and checks one scene; False if the family has no further ones."""
    where = f"{family.name}, {seed}"
    before = time.process_time()
    try:
        scene = make(seed)
    except SceneError as error:
        family.refused += 1
        if family.refused <= REFUSALS_MAX * (family.trials + 1):
            return True
        if family.trials:
            family.failures.append(f"{where}: refused too often: {error}")
        else:
            family.unfit = str(error)
        return False
    except Exception as error:  # noqa: BLE001  a crash is what this looks for
        family.crashes += 1
        family.failures.append(f"{where}: crash: {type(error).__name__}: {error}")
        return True
    if family.last is scene:
        return False
    family.made_ms.append(1e3 * (time.process_time() - before))
    family.scenes += 1
    family.last = scene
    try:
        start_gap_m, route_gap_m = auditor.check(scene)
        family.start_gap_m.append(start_gap_m)
        family.route_gap_m.append(route_gap_m)
    except SceneError as error:
        family.failures.append(f"{where}: {error}")
    except Exception as error:  # noqa: BLE001  as above
        family.failures.append(f"{where}: crash of the check: {type(error).__name__}: {error}")
    return True


def _drawn(kind: str, spec: RobotSpec) -> Make:
    def scene(seed: int) -> Scene:
        rng = np.random.default_rng([seed, 0x6B6E6F62])
        return sim.load_scene(PRESET_OF.get(kind, kind), spec, **drawn_knobs(kind, rng)).scene(seed)

    return scene


def _figures(out: list[Family], spec: RobotSpec, bullet: bool, took_s: float) -> dict[str, Any]:
    trials, failures = sum(f.trials for f in out), [line for f in out for line in f.failures]
    return {
        "robot": spec.name,
        "scenes": sum(f.scenes for f in out),
        "crashes": sum(f.crashes for f in out),
        "refused": sum(f.refused for f in out),
        "failures": len(failures),
        "failure_rate_upper_95": upper_bound_95(min(len(failures), trials), trials),
        "pybullet": bullet,
        "took_s": round(took_s, 1),
        "families": {f.name: f.figures() for f in out},
        "failed": failures[:FAILURES_SHOWN],
        "unfit": {f.name: f.unfit for f in out if f.unfit},
    }


def _place(point: tuple[float, ...]) -> str:
    return f"({point[0]:.2f}, {point[1]:.2f})"
