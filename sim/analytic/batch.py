"""Many worlds in one call: motion, contact and lidar of one kind of robot in a scene each.

The motion is that of `sim.world.World`, step for step: a first-order lag within the acceleration limits, substeps, and
contact that stops the robot where it touched. In scenes with movers a substep moves the robot first and then them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robonav.errors import ShapeError, explain
from robonav.types import LidarSpec, RobotSpec, Scene
from sim.analytic.bits import Array
from sim.analytic.collide import clearance
from sim.analytic.jit import inner, kernel
from sim.analytic.raycast import cast
from sim.analytic.shapes import Shapes, Solid, new_shapes, put, solid_of
from sim.robot import standing_height_m
from sim.world import WorldConfig

DRIVE, TOUCH, FINISH = 1, 2, 4  # parts of a substep; FINISH also measures the clearance


class State(NamedTuple):
    """Robots of B worlds."""

    pose: Array  # (B, 3) x m, y m, yaw rad in the world; yaw is not wrapped
    velocity: Array  # (B, 3) vx, vy in base, yaw rate
    path_m: Array  # (B,) length of the way driven
    clearance_m: Array  # (B,) to the nearest shape, at most the config's range
    collided: Array  # (B,) bool
    free_m: Array  # (B,) no point of the body can touch anything before it has moved this far
    rows: Array  # (B, 8) x, y, yaw, vx, vy, yaw rate in the world, half length, half width: what movers see


class Limits(NamedTuple):
    """A robot's size and motion as plain numbers."""

    half_length_m: float
    half_width_m: float
    reach_m: float
    acceleration_max_mps2: float
    yaw_acceleration_max_radps2: float
    range_m: float  # of the clearance


class AnalyticBatch:
    """B worlds with a robot each. They do not see each other: what happens in one is the same in any batch."""

    def __init__(self, spec: RobotSpec, batch: int, config: WorldConfig | None = None) -> None:
        """Empty worlds.

        Raises:
            ShapeError: fewer than one world, or a config that asks for the robot's links.
        """
        self.spec = spec
        self.config = config or WorldConfig()
        if batch < 1:
            raise ShapeError(explain("batch", "1 or more worlds", batch))
        if self.config.body != "footprint":
            raise ShapeError(explain("body", "'footprint' in analytic worlds", f"'{self.config.body}'"))
        self.batch = batch
        self.shapes: Shapes = new_shapes(batch)
        self.state = State(
            pose=np.zeros((batch, 3)),
            velocity=np.zeros((batch, 3)),
            path_m=np.zeros(batch),
            clearance_m=np.zeros(batch),
            collided=np.zeros(batch, np.bool_),
            free_m=np.zeros(batch),
            rows=np.zeros((batch, 8)),
        )
        self.lag_s = np.full(batch, spec.lag_s)
        self.base_height_m = standing_height_m(spec)
        self.scenes: list[Scene | None] = [None] * batch
        self._limits = Limits(
            half_length_m=spec.length_m / 2,
            half_width_m=spec.width_m / 2,
            reach_m=spec.radius_m,
            acceleration_max_mps2=spec.acceleration_max_mps2,
            yaw_acceleration_max_radps2=spec.yaw_acceleration_max_radps2,
            range_m=self.config.clearance_range_m,
        )
        self._all = np.ones(batch, np.bool_)
        self._none, self._one = np.zeros(batch, np.int64), np.ones(batch, np.int64)
        self._movers: Any = None
        self._beams: dict[LidarSpec, NDArray[np.float64]] = {}
        self._rays, self._ranges = np.zeros((0, 2)), np.zeros(1)

    def reset(self, indices: ArrayLike, scenes: Sequence[Scene], solids: Sequence[Solid] | None = None) -> None:
        """Puts scenes into these worlds, and the robots at their starts, at rest.

        Args:
            solids: of `solid_of`, if they are known already.

        Raises:
            ShapeError: not a scene for each world.
        """
        worlds = np.atleast_1d(np.asarray(indices, np.int64))
        if len(scenes) != len(worlds):
            raise ShapeError(explain("scenes", f"one for each of {len(worlds)} worlds", len(scenes)))
        for k, (b, scene) in enumerate(zip(worlds.tolist(), scenes, strict=True)):
            self.scenes[b] = scene
            self.shapes = put(self.shapes, b, scene, solid_of(scene) if solids is None else solids[k])
            self.state.pose[b], self.state.velocity[b], self.state.path_m[b] = scene.start, 0.0, 0.0
            if scene.movers and self._movers is None:
                from sim.analytic.movers import BatchMovers  # only now, since it takes long to compile

                self._movers = BatchMovers(self.batch)
        if self._movers is not None:
            self._movers.reset(worlds, scenes, self.shapes)
        self.measure(worlds)

    def measure(self, indices: ArrayLike) -> None:
        """Looks for contact where the robots of these worlds are now; call it after setting a pose."""
        todo = np.zeros(self.batch, np.bool_)
        todo[np.asarray(indices, np.int64)] = True
        self.state.collided[todo] = False
        self._advance(np.zeros((self.batch, 3)), todo, self._none, np.zeros(self.batch), FINISH)
        self.state.collided[todo] = self.state.clearance_m[todo] <= 0.0

    def step(
        self,
        commands: NDArray[np.float64],
        active: NDArray[np.bool_] | None = None,
        duration_s: ArrayLike | None = None,
    ) -> State:
        """Follows velocity commands (B, 3) in the worlds that are active.

        Args:
            commands: vx, vy, yaw rate in base.
            active: (B,); all without it.
            duration_s: one for all, or one for each world; a control period without it.

        Returns:
            The state, which the next step changes in place.

        Raises:
            ShapeError: commands of another shape.
        """
        commands = np.ascontiguousarray(commands, np.float64)
        if commands.shape != (self.batch, 3):
            raise ShapeError(explain("commands", f"({self.batch}, 3) vx, vy, yaw rate", commands.shape))
        durations = np.full(self.batch, self.spec.dt_s if duration_s is None else np.asarray(duration_s, np.float64))
        steps = np.maximum(1, np.ceil(durations / self.config.substep_s - 1e-9)).astype(np.int64)
        h = durations / steps
        todo = (self._all if active is None else active) & ~self.state.collided
        self.state.free_m[:] = self.state.clearance_m
        if self._movers is None or not self._movers.any:
            self._advance(commands, todo, steps, h, DRIVE | TOUCH | FINISH)
            return self.state
        for k in range(int(steps.max(where=todo, initial=0))):
            moving = todo & (steps > k)
            self._advance(commands, moving, self._one, h, DRIVE)
            self._movers.advance(self.shapes, self.state, moving & ~self.state.collided, h)
            self._advance(commands, moving, self._one, h, TOUCH)
        self._advance(commands, todo, self._none, h, FINISH)
        return self.state

    def scan(
        self,
        spec: LidarSpec | None = None,
        out: NDArray[np.float32] | None = None,
        active: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """(B, beams) ranges in metres of the robot's lidar, or of another one mounted on it."""
        lidar = spec or self.spec.lidar
        if lidar not in self._beams:
            angles = lidar.angles_rad
            self._beams[lidar] = np.ascontiguousarray(np.stack([np.cos(angles), np.sin(angles)], axis=-1))
        if len(self._rays) != lidar.beams:
            self._rays, self._ranges = np.zeros((lidar.beams, 2)), np.zeros(lidar.beams + 1)
        scan = np.zeros((self.batch, lidar.beams), np.float32) if out is None else out
        _scan(
            self.shapes,
            self.state.pose,
            self._all if active is None else active,
            self._beams[lidar],
            lidar.mount_x_m,
            self.base_height_m + lidar.mount_z_m,
            lidar.angle_min_rad,
            lidar.increment_rad,
            lidar.range_m,
            self._rays,
            self._ranges,
            scan,
        )
        return scan

    @property
    def mover_state(self) -> NDArray[Any] | None:
        """(B, M) records of `sim.movers.STATE`, once a scene with movers was there."""
        return None if self._movers is None else self._movers.state

    def _advance(self, commands: Array, todo: Array, steps: Array, h: Array, parts: int) -> None:
        _advance(self.shapes, self.state, self._limits, self.lag_s, commands, todo, steps, h, parts)


@inner
def _drive(state: State, limits: Limits, lag_s: float, b: int, target: Array, h: float) -> None:
    """One substep of lag, limits and pose; see `World._integrate`."""
    blend = 1.0 - math.exp(-h / lag_s) if lag_s > 0.0 else 1.0
    velocity, pose = state.velocity[b], state.pose[b]
    dx, dy = blend * (target[0] - velocity[0]), blend * (target[1] - velocity[1])
    turn = blend * (target[2] - velocity[2])
    planar = math.hypot(dx, dy)
    limit = limits.acceleration_max_mps2 * h
    if planar > limit:
        dx, dy = dx * limit / planar, dy * limit / planar
    turn_limit = limits.yaw_acceleration_max_radps2 * h
    vx, vy = velocity[0] + dx, velocity[1] + dy
    yaw_rate = velocity[2] + min(max(turn, -turn_limit), turn_limit)
    middle = pose[2] + yaw_rate * h / 2
    c, s = math.cos(middle), math.sin(middle)
    pose[0] += (c * vx - s * vy) * h
    pose[1] += (s * vx + c * vy) * h
    pose[2] += yaw_rate * h
    velocity[0], velocity[1], velocity[2] = vx, vy, yaw_rate
    moved = math.hypot(vx, vy) * h
    state.path_m[b] += moved
    state.free_m[b] -= moved + abs(yaw_rate) * h * limits.reach_m


@kernel
def _advance(
    shapes: Shapes,
    state: State,
    limits: Limits,
    lag_s: Array,
    commands: Array,
    todo: Array,
    steps: Array,
    h: Array,
    parts: int,
) -> None:
    """`steps` (B,) substeps of `h` (B,) seconds in the worlds in `todo`; those that touch something stop there."""
    half_l, half_w, range_m = limits.half_length_m, limits.half_width_m, limits.range_m
    for b in range(len(todo)):
        if not todo[b]:
            continue
        pose, velocity, row = state.pose[b], state.velocity[b], state.rows[b]
        for k in range(steps[b] + 1):
            if state.collided[b]:
                break
            last = k == steps[b]
            if not last and parts & DRIVE:
                _drive(state, limits, lag_s[b], b, commands[b], h[b])
            if (last and parts & FINISH) or (not last and parts & TOUCH and state.free_m[b] <= 1e-3):
                gap = clearance(shapes, b, pose[0], pose[1], pose[2], half_l, half_w, range_m)
                state.clearance_m[b] = state.free_m[b] = gap
                if not last and gap <= 0.0:
                    state.collided[b] = True
                    velocity[0], velocity[1], velocity[2] = 0.0, 0.0, 0.0
        c, s = math.cos(pose[2]), math.sin(pose[2])
        row[0], row[1], row[2], row[5], row[6], row[7] = pose[0], pose[1], pose[2], velocity[2], half_l, half_w
        row[3], row[4] = c * velocity[0] - s * velocity[1], s * velocity[0] + c * velocity[1]


@kernel
def _scan(
    shapes: Shapes,
    pose: Array,
    todo: Array,
    beams: Array,
    mount_x_m: float,
    height_m: float,
    first_rad: float,
    step_rad: float,
    range_m: float,
    rays: Array,
    ranges: Array,
    out: Array,
) -> None:
    for b in range(len(todo)):
        if todo[b]:
            cast(shapes, b, pose[b], beams, mount_x_m, height_m, first_rad, step_rad, range_m, rays, ranges, out[b])
