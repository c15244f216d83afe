"""The lidar of a PyBullet world by the compiled ray casting of `sim.analytic`, on the same scene and movers.

PyBullet's own ray test of 128 beams takes 0.4 ms, as long as everything else in a step; this takes a tenth of that, and
99.9 % of the beams agree within 1 cm (`sim.analytic.agreement`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robonav.types import Float, LidarSpec, RobotSpec, Scene
from sim.analytic.batch import AnalyticBatch
from sim.analytic.shapes import put, solid_of

if TYPE_CHECKING:
    from sim.world import World


class CompiledRays:
    """Shapes of a world's scene. The robot is not one of them."""

    def __init__(self, spec: RobotSpec) -> None:
        self._batch = AnalyticBatch(spec, 1)
        self._scene: Scene | None = None
        self._sizes = np.zeros((0, 2))

    def scan(self, world: World, spec: LidarSpec) -> Float:
        """(beams,) ranges in metres from the mount of a level robot; the range's limit where nothing is hit."""
        batch, scene = self._batch, world.scene
        if scene is None:
            raise RuntimeError("CompiledRays.scan before World.load")
        if scene is not self._scene:
            batch.shapes = put(batch.shapes, 0, scene, solid_of(scene))
            self._scene = scene
            if world.movers is not None:
                self._sizes = _sizes(scene, world.movers.table, world.base_height_m + spec.mount_z_m)
        batch.state.pose[0] = world.pose_world
        if world.movers is not None:
            rows, state = batch.shapes.movers[0, : len(scene.movers)], world.movers.state
            rows[:, 0], rows[:, 1], rows[:, 2:4] = state["x"], state["y"], self._sizes
            rows[:, 4], rows[:, 5] = np.cos(state["yaw"]), np.sin(state["yaw"])
        return np.asarray(batch.scan(spec)[0])


def _sizes(scene: Scene, table: NDArray[np.void], lidar_m: float) -> NDArray[np.float64]:
    """(M, 2) half length and half width, of a disc its radius and 0; both 0 where the beams pass over a mover."""
    disc = table["half_width_m"] <= 0.0
    sizes = np.column_stack([np.where(disc, table["radius_m"], table["half_length_m"]), table["half_width_m"]])
    tall = np.array([mover.height_m > lidar_m for mover in scene.movers])
    return np.where(tall[:, None], sizes, 0.0)
