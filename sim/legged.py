"""A scene in PyBullet with a robot that walks on its own legs: the truth that the other worlds stand in for.

The interface is that of `sim.world.World`. The robot walks in a client of its own (`sim.walker`); its links follow in
the scene's client, where PyBullet decides about contact with what stands there. Touching anything but the floor, ramps
and steps is a collision, a base that tips over or sinks is a fall; after either, the robot stays where it was.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.gait import TrotConfig
from sim.randomisation import LegsDraw
from sim.robot import Posture
from sim.walker import CONTROL_S, LeggedConfig, Walker
from sim.world import World, WorldConfig

FOOT_SPEED_MPS = 4.0  # no point of a trotting robot is faster than this against its base
_SALT = 0x6C656773  # keeps the pushes apart from other streams of random numbers


class LeggedWorld(World):
    """A scene and a robot that trots; see `World` for what is not described here."""

    def __init__(
        self,
        spec: RobotSpec,
        config: LeggedConfig | None = None,
        trot: TrotConfig | None = None,
        clearance_range_m: float = 1.0,
    ) -> None:
        """Connects the two clients.

        Raises:
            ConfigError: the robot has no legs, or they do not fit its URDF.
            SceneError: there is no such URDF.
            MissingDependencyError: PyBullet is not installed.
        """
        self._walker = Walker(spec, config, trot)
        self._config = self._walker.config
        super().__init__(spec, WorldConfig(clearance_range_m=clearance_range_m, body="links"))
        self._owed_s = 0.0  # time that was asked for and is no whole control step yet
        self._pushes = LegsDraw()
        self._rng = np.random.default_rng(0)
        self._until_push_s = math.inf

    def vary(self, legs: LegsDraw, seed: int = 0) -> None:
        """Ground, masses, motors and pushes of the coming episodes, from the next `load` or `place` on."""
        own = self._config
        self._walker.config = dataclasses.replace(
            own,
            friction=own.friction if legs.friction is None else legs.friction,
            motor_strength=own.motor_strength * legs.motor_strength,
            payload_kg=own.payload_kg + legs.added_mass_kg,
            com_shift_m=legs.centre_of_mass_m,
        )
        self._pushes = legs
        self._rng = np.random.default_rng([seed, _SALT])

    def load(self, scene: Scene) -> None:
        """Puts the obstacles of a scene into the world and the robot at its start, standing."""
        self.scene = scene  # whose ramps and steps the walker needs
        super().load(scene)

    def place(self, x_m: float, y_m: float, yaw_rad: float) -> None:
        """Stands the robot at a pose in the world frame and looks for contact there."""
        self._walker.reset(x_m, y_m, yaw_rad, self.scene)
        self._owed_s = 0.0
        self._until_push_s = self._pushes.push_period_s if self._pushes.push_mps > 0 else math.inf
        self.velocity = (0.0, 0.0, 0.0)
        self.base_height_m = self._walker.position_m[2]
        super().place(x_m, y_m, yaw_rad)

    @property
    def fallen(self) -> bool:
        """True once the robot has fallen."""
        return self._walker.fallen

    @property
    def tilt_rad(self) -> tuple[float, float]:
        """Roll and pitch of the base."""
        return self._walker.tilt_rad

    @property
    def feet_down(self) -> tuple[bool, bool, bool, bool]:
        """Which feet touch the ground, in the order of `LegsSpec.all`."""
        return self._walker.feet_down

    @property
    def posture(self) -> Posture:
        """Where its root link and joints are, for pictures."""
        names = [name for leg in self._walker.body.legs for name in leg.joints]
        angles = dict(zip(names, self._walker.joint_angles, strict=True))
        return Posture(self._walker.position_m, self._walker.orientation, angles)

    def push(self, vx_mps: float, vy_mps: float, roll_rate_radps: float = 0.0, pitch_rate_radps: float = 0.0) -> None:
        """Adds to the base's velocity, in the world frame, as a kick would."""
        self._walker.push(vx_mps, vy_mps, roll_rate_radps, pitch_rate_radps)

    def advance(self, command: tuple[float, float, float] | NDArray[Any], duration_s: float) -> bool:
        """Follows a velocity command (vx, vy, yaw rate in the base frame) for a while; True once the robot has
        collided or fallen.

        Time goes in whole control steps; the rest of `duration_s` is made up for by the next call.
        """
        if self.collided or self.fallen:
            return True
        target = np.array([float(command[0]), float(command[1]), float(command[2])])
        self._owed_s += duration_s
        steps = math.floor(self._owed_s / CONTROL_S + 1e-6)
        self._owed_s -= steps * CONTROL_S
        free_m = self._clearance_m  # no point of the robot can touch anything before it has moved this far
        for _ in range(steps):
            free_m -= self._step(target)
            if free_m <= 1e-3 and not self.fallen:
                self._move_body()
                free_m = self._query(self.config.clearance_range_m)
                self.collided = free_m <= 0.0
            if self.collided or self.fallen:
                break
        self.velocity = (0.0, 0.0, 0.0) if self.collided or self.fallen else self._walker.velocity
        self._move_body()
        self._clearance_m = self._query(self.config.clearance_range_m)
        return self.collided or self.fallen

    def close(self) -> None:
        """Disconnects both clients; safe to call again."""
        super().close()
        self._walker.close()

    def _step(self, target: NDArray[np.float64]) -> float:
        """One control step; returns metres that nothing moved further against anything else."""
        self._until_push_s -= CONTROL_S
        if self._until_push_s <= 0:
            self._until_push_s += self._pushes.push_period_s
            angle = self._rng.uniform(-math.pi, math.pi)
            size = self._pushes.push_mps
            self._walker.push(size * math.cos(angle), size * math.sin(angle))
        before = (self.x_m, self.y_m)
        self._walker.step(target)
        self.x_m, self.y_m, self.base_height_m = self._walker.position_m
        self.yaw_rad = self._walker.yaw_rad
        moved = math.dist(before, (self.x_m, self.y_m))
        self.path_m += moved
        if self.movers is not None:
            moved += self.movers.advance(self.pose_world, self._walker.velocity, self.spec, CONTROL_S)
        return moved + FOOT_SPEED_MPS * CONTROL_S

    def _move_body(self) -> None:
        """Poses the robot's links, and the movers, in the scene's client."""
        if self.movers is not None:
            self.movers.place()
        p, walker = self.bullet, self._walker
        at, turn = p.multiplyTransforms(walker.position_m, walker.orientation, *self._inertial)
        p.resetBasePositionAndOrientation(self._robot, at, turn, physicsClientId=self.client)
        for joint, angle in zip(self._leg_joints, walker.joint_angles, strict=True):
            p.resetJointState(self._robot, joint, angle, physicsClientId=self.client)

    def _load_robot(self) -> int:
        robot, p = super()._load_robot(), self.bullet
        names = {
            p.getJointInfo(robot, joint, physicsClientId=self.client)[1].decode(): joint
            for joint in range(p.getNumJoints(robot, physicsClientId=self.client))
        }
        self._leg_joints = [names[name] for leg in self._walker.body.legs for name in leg.joints]
        self._inertial = p.getDynamicsInfo(robot, -1, physicsClientId=self.client)[3:5]
        return robot
