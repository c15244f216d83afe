"""How well analytic worlds agree with PyBullet: lidar beams and contact at random poses in generated scenes.

PyBullet answers with ``rayTestBatch`` and ``getClosestPoints`` on bodies of its own. Half of the poses are drawn from
all over the scene's bounds, where a good share touches something, and half of them near an obstacle, where verdicts are
hard. Movers first walk for a while, on both sides by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.config import load_robot
from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.analytic.world import AnalyticWorld
from sim.scenes import load_scene
from sim.sensors import Lidar
from sim.world import World

PRESETS = ("rooms", "maze", "clutter", "warehouse", "crowd-few", "crowd-dense", "doors-moving", "office")
BEAM_TOLERANCE_M = 0.01
POSES_A_SCENE = 25
NEAR_M = 0.5  # half of the poses have an obstacle at most this far from the footprint
FAR_M = 1e3
MOVER_TIME_S = 20.0  # movers walk for up to so long before a scene's poses are tried
_SALT = 0x61677265


def measure_agreement(
    poses: int = 10_000, presets: Sequence[str] = PRESETS, robot: str | RobotSpec = "a1", seed: int = 0
) -> dict[str, Any]:
    """Compares both at this many poses over the presets' scenes.

    Returns:
        poses, beams; beams_within (share of the beams that agree within 1 cm), verdicts_same (share of the poses with
        the same answer to whether the robot touches something), touching (share of the poses that do), worst_gap_m
        (the largest gap that one side sees where the other one sees contact), clearance_error_m (99.9th percentile of
        the difference of the distances), and for each of `presets` its shares.

    Raises:
        ConfigError: no poses, or no presets.
        MissingDependencyError: PyBullet is not installed.
    """
    if poses < 1 or not presets:
        raise ConfigError(explain("poses, presets", "1 or more of each", f"{poses}, {len(presets)}"))
    spec = load_robot(robot) if isinstance(robot, str) else robot
    shares = np.array_split(np.arange(poses), len(presets))
    world = World(spec)
    try:
        parts = {
            name: _of_preset(name, len(share), world, spec, np.random.default_rng([seed, k, _SALT]))
            for k, (name, share) in enumerate(zip(presets, shares, strict=True))
            if len(share)
        }
    finally:
        world.close()
    beams, ours, theirs = (np.concatenate([part[k] for part in parts.values()]) for k in range(3))
    differ = (ours <= 0) != (theirs <= 0)
    error = np.abs(ours - theirs)
    return {
        "poses": len(ours),
        "beams": int(beams.size),
        "beams_within": float(beams.mean()),
        "verdicts_same": float(1 - differ.mean()),
        "touching": float((theirs <= 0).mean()),
        "worst_gap_m": float(error[differ].max(initial=0.0)),
        "clearance_error_m": float(np.quantile(error, 0.999)),
        "presets": {
            name: {
                "poses": len(a),
                "beams_within": float(within.mean()),
                "verdicts_same": float(((a <= 0) == (b <= 0)).mean()),
            }
            for name, (within, a, b) in parts.items()
        },
    }


def _of_preset(
    name: str, poses: int, world: World, spec: RobotSpec, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """(n, beams) beams that agree, and the (n,) clearances of both sides."""
    source = load_scene(name, spec)
    lidar = Lidar(spec.lidar)  # without the robot's data PyBullet casts the beams
    ours = AnalyticWorld(spec)
    within, gaps, bullet_gaps = [], [], []
    for done in range(0, poses, POSES_A_SCENE):
        scene = source.scene(int(rng.integers(2**31)))
        world.load(scene)
        ours.load(scene)
        if scene.movers:
            _walk(world, ours, round(rng.uniform(0.0, MOVER_TIME_S) / spec.dt_s))
        for k in range(min(POSES_A_SCENE, poses - done)):
            pose = _pose(ours, scene, rng, near=k % 2 == 0)
            ours.place(*pose)
            world.place(*pose)
            within.append(np.abs(ours.scan(spec.lidar) - lidar.scan(world)) <= BEAM_TOLERANCE_M)
            gaps.append(ours.clearance_m)
            bullet_gaps.append(world.clearance_m)
    return np.array(within), np.array(gaps), np.array(bullet_gaps)


def _walk(world: World, ours: AnalyticWorld, ticks: int) -> None:
    """Lets the movers walk on while the robot is far away: a touch would stop both sides, perhaps a substep apart."""
    for side in (world, ours):
        side.place(FAR_M, FAR_M, 0.0)
        for _ in range(ticks):
            side.advance((0.0, 0.0, 0.0), world.spec.dt_s)


def _pose(ours: AnalyticWorld, scene: Scene, rng: np.random.Generator, near: bool) -> tuple[float, float, float]:
    """A pose within the bounds; `near` tries for one with an obstacle close to the footprint."""
    x_min, y_min, x_max, y_max = scene.bounds_m
    for _ in range(50 if near else 1):
        pose = (rng.uniform(x_min, x_max), rng.uniform(y_min, y_max), rng.uniform(-np.pi, np.pi))
        ours.place(*pose)
        if 0.0 < ours.clearance_m <= NEAR_M:
            break
    return pose
