"""A scene in PyBullet with one robot that follows velocity commands.

The robot is kinematic: its velocity follows the command as a first-order lag within the acceleration limits, and its
pose is the integral of that. PyBullet decides about contact. Walking legs are left out; the lag stands for them.

The body that collides is the robot's footprint as one box, as the map, the planner and the governor know it. In
generated rooms a distance query costs 0.11 ms with the A1's own 22 links and 0.013 ms with the box; ``body="links"``
takes the links all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.bullet import CHILDREN_PER_BODY, import_pybullet
from sim.geodesic import all_boxes
from sim.robot import load_standing, standing_height_m

if TYPE_CHECKING:
    from sim.mover_bodies import MoverBodies

SCENES_PER_RESET = 100  # PyBullet keeps some memory of every removed shape; starting afresh now and then frees it


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """How the world is stepped."""

    substep_s: float = 0.025  # longest step of the integration and of the contact check
    clearance_range_m: float = 1.0  # clearance is measured up to here
    body: Literal["footprint", "links"] = "footprint"

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            ConfigError: one that is not above 0, or an unknown body.
        """
        for name in ("substep_s", "clearance_range_m"):
            if not getattr(self, name) > 0:
                raise ConfigError(explain(name, "a number above 0", getattr(self, name)))
        if self.body not in ("footprint", "links"):
            raise ConfigError(explain("body", "'footprint' or 'links'", f"'{self.body}'"))


class World:
    """One PyBullet client with the obstacles of a scene and a robot."""

    def __init__(self, spec: RobotSpec, config: WorldConfig | None = None) -> None:
        """Connects a client of its own.

        Raises:
            MissingDependencyError: PyBullet is not installed.
        """
        self.spec = spec
        self.config = config or WorldConfig()
        self.bullet = import_pybullet()
        self.client: int = self.bullet.connect(self.bullet.DIRECT)
        self.scene: Scene | None = None
        self.base_height_m = standing_height_m(spec)
        self.x_m = self.y_m = self.yaw_rad = 0.0
        self.velocity = (0.0, 0.0, 0.0)  # vx, vy in the base frame, yaw rate
        self.lag_s = spec.lag_s  # randomisation sets it for an episode
        self.path_m = 0.0
        self.collided = False
        self._clearance_m = 0.0
        self.movers: MoverBodies | None = None
        self.seen = True  # whether a camera looks; what it would see takes 1 ms a scene to make
        self._obstacles: list[int] = []
        self._loaded = 0
        self._robot = self._load_robot()

    def load(self, scene: Scene) -> None:
        """Puts the obstacles of a scene into the world and the robot at its start, at rest."""
        if self._loaded >= SCENES_PER_RESET:
            self.bullet.resetSimulation(physicsClientId=self.client)
            self._robot, self._obstacles, self._loaded = self._load_robot(), [], 0
        for body in self._obstacles:
            self.bullet.removeBody(body, physicsClientId=self.client)
        self._obstacles = add_obstacles(self.bullet, self.client, scene, visual=-1 if self.seen else self._speck)
        self.movers = None
        if scene.movers:  # only then numba is loaded
            from sim.mover_bodies import MoverBodies

            self.movers = MoverBodies(self.bullet, self.client, scene)
            self._obstacles += self.movers.ids
        self._loaded += 1
        self.scene = scene
        self.velocity = (0.0, 0.0, 0.0)
        self.path_m = 0.0
        self.place(*scene.start)

    def place(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Sets the robot's pose in the world frame and looks for contact there."""
        self.x_m, self.y_m, self.yaw_rad = float(x_m), float(y_m), float(yaw_rad)
        self._move_body()
        self._clearance_m = self._query(self.config.clearance_range_m)
        self.collided = self._clearance_m <= 0.0

    @property
    def pose_world(self) -> tuple[float, float, float]:
        """(x, y, yaw) of the base in the world frame; yaw is not wrapped."""
        return self.x_m, self.y_m, self.yaw_rad

    @property
    def mover_state(self) -> NDArray[Any] | None:
        """Records of `sim.movers.STATE`, where the scene has movers."""
        return None if self.movers is None else self.movers.state

    @property
    def clearance_m(self) -> float:
        """Distance from the robot's body to the nearest obstacle, at most `clearance_range_m`, 0 in contact."""
        return max(self._clearance_m, 0.0)

    def advance(self, command: tuple[float, float, float] | NDArray[Any], duration_s: float) -> bool:
        """Follows a velocity command (vx, vy, yaw rate in the base frame) for a while; True once there is contact.

        The scene's movers move along, and contact counts whoever ran into whom.

        Contact stops the robot where it touched; it stays there until the next `load` or `place`.
        """
        if self.collided:
            return True
        target = (float(command[0]), float(command[1]), float(command[2]))
        steps = max(1, math.ceil(duration_s / self.config.substep_s - 1e-9))
        h = duration_s / steps
        free_m = self._clearance_m  # no point of the body can touch anything before it has moved this far
        for _ in range(steps):
            moved = self._integrate(target, h)
            turned = abs(self.velocity[2]) * h * self._reach_m
            free_m -= moved + turned
            if self.movers is not None:
                free_m -= self.movers.advance(self.pose_world, self.velocity, self.spec, h)
            if free_m <= 1e-3:
                self._move_body()
                free_m = self._query(self.config.clearance_range_m)
                if free_m <= 0.0:
                    self.collided = True
                    self.velocity = (0.0, 0.0, 0.0)
                    self._clearance_m = free_m
                    return True
        self._move_body()
        self._clearance_m = self._query(self.config.clearance_range_m)
        return False

    def close(self) -> None:
        """Disconnects the client; safe to call again."""
        if self.client >= 0:
            self.bullet.disconnect(physicsClientId=self.client)
            self.client = -1

    def _integrate(self, target: tuple[float, float, float], h: float) -> float:
        """One substep of lag, limits and pose; returns the metres moved."""
        spec = self.spec
        blend = 1.0 - math.exp(-h / self.lag_s) if self.lag_s > 0 else 1.0
        vx, vy, yaw_rate = self.velocity
        dx, dy, dr = (blend * (goal - now) for goal, now in zip(target, self.velocity, strict=True))
        planar = math.hypot(dx, dy)
        limit = spec.acceleration_max_mps2 * h
        if planar > limit:
            dx, dy = dx * limit / planar, dy * limit / planar
        turn_limit = spec.yaw_acceleration_max_radps2 * h
        vx, vy, yaw_rate = vx + dx, vy + dy, yaw_rate + min(max(dr, -turn_limit), turn_limit)
        middle = self.yaw_rad + yaw_rate * h / 2
        c, s = math.cos(middle), math.sin(middle)
        self.x_m += (c * vx - s * vy) * h
        self.y_m += (s * vx + c * vy) * h
        self.yaw_rad += yaw_rate * h
        self.velocity = (vx, vy, yaw_rate)
        moved = math.hypot(vx, vy) * h
        self.path_m += moved
        return moved

    def _query(self, range_m: float) -> float:
        """PyBullet's distance between the robot's body and the obstacles; negative inside, `range_m` if further."""
        nearest = range_m
        for body in self._obstacles:
            for point in self.bullet.getClosestPoints(self._robot, body, range_m, physicsClientId=self.client):
                nearest = min(nearest, point[8])
        return float(nearest)

    def _move_body(self) -> None:
        if self.movers is not None:
            self.movers.place()
        half = self.yaw_rad / 2
        self.bullet.resetBasePositionAndOrientation(
            self._robot,
            (self.x_m, self.y_m, self._body_z_m),
            (0.0, 0.0, math.sin(half), math.cos(half)),
            physicsClientId=self.client,
        )

    def _load_robot(self) -> int:
        p, spec = self.bullet, self.spec
        # The client begins afresh here. One speck stands for what PyBullet would otherwise draw of each obstacle.
        self._speck = int(p.createVisualShape(p.GEOM_BOX, halfExtents=[1e-3] * 3, physicsClientId=self.client))
        if self.config.body == "links":
            robot = load_standing(p, self.client, spec, p.URDF_IGNORE_VISUAL_SHAPES)
            self._body_z_m = self.base_height_m
            boxes = np.array(
                [
                    p.getAABB(robot, link, physicsClientId=self.client)
                    for link in range(-1, p.getNumJoints(robot, self.client))
                ]
            )
            self._reach_m = float(np.hypot(*np.abs(boxes[..., :2]).max(axis=(0, 1))))
        else:
            half = [spec.length_m / 2, spec.width_m / 2, spec.height_m / 2]
            shape = p.createCollisionShape(p.GEOM_BOX, halfExtents=half, physicsClientId=self.client)
            robot = p.createMultiBody(1.0, shape, physicsClientId=self.client)
            self._body_z_m = spec.height_m / 2 + 0.01
            self._reach_m = spec.radius_m
        for link in range(-1, p.getNumJoints(robot, physicsClientId=self.client)):
            # Invisible to the depth camera: it sits inside, and meshes would cost 17 ms an image.
            p.changeVisualShape(robot, link, rgbaColor=(0, 0, 0, 0), physicsClientId=self.client)
        return int(robot)


def add_obstacles(
    bullet: Any, client: int, scene: Scene, rgba: tuple[float, ...] | None = None, visual: int = -1
) -> list[int]:
    """Creates the walls, boxes and cylinders of a scene as static bodies of up to 16 shapes; returns their ids.

    They are drawn as they are, or as the visual shape `visual`.
    """
    half_z = scene.height_m / 2
    shapes: list[tuple[int, list[float], float, list[float], list[float]]] = []
    for x, y, length, width, yaw in all_boxes(scene):
        turn = [0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]
        shapes.append((bullet.GEOM_BOX, [length / 2, width / 2, half_z], 0.0, [x, y, half_z], turn))
    for x, y, radius in np.asarray(scene.cylinders, np.float64).reshape(-1, 3):
        shapes.append((bullet.GEOM_CYLINDER, [0.0, 0.0, 0.0], radius, [x, y, half_z], [0.0, 0.0, 0.0, 1.0]))
    bodies = []
    for first in range(0, len(shapes), CHILDREN_PER_BODY):
        # Lists throughout: PyBullet 3.2.7 crashes on tuples of frames.
        part = shapes[first : first + CHILDREN_PER_BODY]
        kinds, extents, radii, places, turns = ([shape[i] for shape in part] for i in range(5))
        shape = bullet.createCollisionShapeArray(
            shapeTypes=kinds,
            halfExtents=extents,
            radii=radii,
            lengths=[scene.height_m] * len(kinds),
            collisionFramePositions=places,
            collisionFrameOrientations=turns,
            physicsClientId=client,
        )
        body = bullet.createMultiBody(0.0, shape, visual, physicsClientId=client)
        if rgba is not None:
            bullet.changeVisualShape(body, -1, rgbaColor=rgba, physicsClientId=client)
        bodies.append(int(body))
    return bodies
