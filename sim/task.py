"""A scene as a task: the field whose fall is progress, and the length of the shortest way."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from robonav.errors import SceneError
from robonav.types import RobotSpec, Scene
from sim.geodesic import GeodesicField, ObstacleGrid, safe_clearance_m, tight_clearance_m

FIELD_GRIDS_M = (0.125, 0.05)  # the fine one only where gaps are too narrow for the other


@dataclass(frozen=True, slots=True)
class Task:
    """A scene, and what its reward is measured by."""

    scene: Scene
    field: GeodesicField
    shortest_m: float


def task_of(scene: Scene, robot: RobotSpec) -> Task:
    """The task of a scene; by `sim.analytic.fields`, which gives the same in a fifth of the time, where numba is there.

    Raises:
        SceneError: no way leads to the goal.
    """
    if find_spec("numba") is None:
        return Task(scene, *reward_field(scene, robot))
    from sim.analytic.fields import field_of
    from sim.analytic.shapes import solid_of

    return Task(scene, *field_of(scene, solid_of(scene), robot))


def field_to(grid: ObstacleGrid, goal_m: tuple[float, float], clearance_m: float) -> GeodesicField:
    """`GeodesicField.of`, by its compiled twin where numba is there: most of drawing a scene is this search."""
    if find_spec("numba") is None:
        return GeodesicField.of(grid, goal_m, clearance_m)
    from sim.analytic.fields import field_on

    return field_on(grid.distance_m, grid.origin_m, grid.resolution_m, goal_m, clearance_m)


def reward_field(scene: Scene, robot: RobotSpec) -> tuple[GeodesicField, float]:
    """The field whose fall is progress, and the length of the shortest way into the goal's circle.

    Progress follows the way that is free for any heading where there is one, else the tight one. The shortest way is
    the tight one, close to a lower bound for the footprint, so that SPL is not flattered.

    Raises:
        SceneError: no way leads to the goal.
    """
    start = scene.start[:2]
    for resolution_m in FIELD_GRIDS_M:
        grid = ObstacleGrid.of(scene, resolution_m)
        tight = GeodesicField.of(grid, scene.goal, tight_clearance_m(robot))
        if tight.reaches(*start):
            safe = GeodesicField.of(grid, scene.goal, safe_clearance_m(robot))
            field = safe if safe.reaches(*start) else tight
            return field, max(tight.at(*start) - scene.goal_radius_m, 0.0)
    raise SceneError(f"scene '{scene.name}': no way from start {start} to goal {scene.goal} for robot '{robot.name}'")
