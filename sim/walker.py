"""A robot that trots in a PyBullet client of its own: ground, walking body, motors at 500 Hz and the gait at 125 Hz.

The client holds nothing but the robot and what it can walk on, so that a step costs the same whatever the scene, and a
reset, which starts the client afresh, leads to the same state each time.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from robonav.config import require_at_least
from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec, Scene
from sim.bullet import import_pybullet
from sim.gait import GRAVITY_MPS2, Trot, TrotConfig
from sim.robot import standing_height_m
from sim.terrain import add_terrain, floor_height_m
from sim.urdf import Array
from sim.walking_body import WalkingBody

PHYSICS_S = 0.002
CONTROL_EVERY = 4  # physics steps
CONTROL_S = PHYSICS_S * CONTROL_EVERY
SOLVER_ITERATIONS = 20  # four balls on a floor: 10 and 50 walk alike
LOOK_EVERY = 10  # control steps between looks at the floor round the robot, where a scene has ramps or steps
LOOK_AHEAD_M = 0.3
_JOINTS = list(range(12))
_FEET = (2, 5, 8, 11)  # links of the walking body


@dataclass(frozen=True, slots=True)
class LeggedConfig:
    """The ground and the robot's condition; the gait knows nothing of it."""

    friction: float = 0.8  # between foot and ground
    motor_strength: float = 1.0  # share of the torque limits
    payload_kg: float = 0.0  # added to the base; negative takes away
    com_shift_m: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the base's centre of mass
    fall_tilt_rad: float = 0.8  # a base that leans more has fallen
    fall_height: float = 0.5  # so has one that is lower, in stance heights

    def __post_init__(self) -> None:
        """Checks the numbers' ranges."""
        require_at_least(self, {"friction": 0.0, "fall_tilt_rad": 0.0, "fall_height": 0.0})
        if not self.motor_strength > 0:
            raise ConfigError(explain("motor_strength", "a number above 0", self.motor_strength))


class Walker:
    """The robot's body and gait. Poses are those of the URDF's root link, in the world frame."""

    def __init__(self, spec: RobotSpec, config: LeggedConfig | None = None, trot: TrotConfig | None = None) -> None:
        """Connects a client and stands the robot up at the origin.

        Raises:
            ConfigError: the robot has no legs, or they do not fit its URDF.
            SceneError: there is no such URDF.
            MissingDependencyError: PyBullet is not installed.
        """
        self.spec = spec
        self.config = config or LeggedConfig()
        self.body = WalkingBody.of(spec)
        self.trot = Trot(self.body, spec, trot)
        self._p = import_pybullet()
        self._client: int = self._p.connect(self._p.DIRECT)
        reach = np.array([spec.length_m, spec.width_m]) / 2 + LOOK_AHEAD_M
        grid = np.meshgrid(np.linspace(-reach[0], reach[0], 9), np.linspace(-reach[1], reach[1], 7))
        self._patch_m = np.stack(grid, axis=-1).reshape(-1, 2)
        self._recent: deque[Array] = deque(maxlen=max(1, round(self.trot.period_s / 2 / CONTROL_S)))
        self.reset(0.0, 0.0, 0.0)

    def reset(self, x_m: float, y_m: float, yaw_rad: float, scene: Scene | None = None) -> None:
        """A fresh client with the scene's ramps and steps, the robot standing at rest."""
        p, c, config = self._p, self._client, self.config
        p.resetSimulation(physicsClientId=c)
        p.setPhysicsEngineParameter(
            fixedTimeStep=PHYSICS_S,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            physicsClientId=c,
        )
        p.setGravity(0.0, 0.0, -GRAVITY_MPS2, physicsClientId=c)
        plane = p.createCollisionShape(p.GEOM_PLANE, physicsClientId=c)
        ground = [int(p.createMultiBody(0.0, plane, physicsClientId=c))]
        if scene is not None:
            ground += add_terrain(p, c, scene)
        for body in ground:
            p.changeDynamics(body, -1, lateralFriction=config.friction, physicsClientId=c)
        self._uneven = scene if scene is not None and len(ground) > 1 else None
        floor_m = 0.0
        if self._uneven is not None:
            legs = self.spec.legs
            assert legs is not None
            feet = np.array([leg.standing_foot_m(legs) for leg in self.body.legs])[:, :2]
            floor_m = float(floor_height_m(self._uneven, self._at(feet, x_m, y_m, yaw_rad)).max())
        self._robot = self.body.load(p, c, config.payload_kg, config.com_shift_m)
        for link in range(-1, 12):
            p.changeDynamics(
                *(self._robot, link),
                lateralFriction=1.0,
                linearDamping=0.0,
                angularDamping=0.0,
                jointDamping=0.0,
                physicsClientId=c,
            )
        self.trot.reset()
        for joint, angle in enumerate(self.trot.state["angles"].tolist()):
            p.resetJointState(self._robot, joint, angle, physicsClientId=c)
        p.setJointMotorControlArray(
            self._robot, _JOINTS, p.VELOCITY_CONTROL, forces=[0.0] * 12, physicsClientId=c
        )  # else Bullet's own motors hold the joints
        inertial = p.getDynamicsInfo(self._robot, -1, physicsClientId=c)[3:5]
        self._to_root = p.invertTransform(*inertial)
        turn = (0.0, 0.0, math.sin(yaw_rad / 2), math.cos(yaw_rad / 2))
        at = (x_m, y_m, floor_m + standing_height_m(self.spec))
        p.resetBasePositionAndOrientation(self._robot, *p.multiplyTransforms(at, turn, *inertial), physicsClientId=c)
        self._limits = [config.motor_strength * t for leg in self.body.legs for t in leg.max_torque_nm]
        self._motors: list[tuple[float, float, float, float]] = []
        self._steps = 0
        self._recent.clear()
        self.fallen = False
        self.position_m: tuple[float, float, float] = at
        self.orientation: tuple[float, float, float, float] = turn
        self.yaw_rad = float(yaw_rad)

    def step(self, command: Array) -> None:
        """Moves on by CONTROL_S under a velocity command (3,): vx, vy in m/s in the base frame, yaw rate in rad/s."""
        p, c, robot = self._p, self._client, self._robot
        for step in range(CONTROL_EVERY):
            joints = p.getJointStates(robot, _JOINTS, physicsClientId=c)
            if step == 0:
                self._control(command, [joint[0] for joint in joints])
            torques = []
            for (bias, stiffness, damping, limit), joint in zip(self._motors, joints, strict=True):
                torque = bias - stiffness * joint[0] - damping * joint[1]
                torques.append(torque if -limit < torque < limit else math.copysign(limit, torque))
            p.setJointMotorControlArray(robot, _JOINTS, p.TORQUE_CONTROL, forces=torques, physicsClientId=c)
            p.stepSimulation(physicsClientId=c)
        self._read_pose()

    @property
    def tilt_rad(self) -> tuple[float, float]:
        """Roll and pitch of the base."""
        x, y, z, w = self.orientation
        roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
        return roll, math.asin(min(max(2 * (w * y - z * x), -1.0), 1.0))

    @property
    def velocity(self) -> tuple[float, float, float]:
        """(vx, vy, yaw rate) in the level base frame, over the last half of the gait's period: without its sway."""
        if not self._recent:
            return (0.0, 0.0, 0.0)
        vx, vy, _, yaw_rate = (sum(values) / len(self._recent) for values in zip(*self._recent, strict=True))
        return vx, vy, yaw_rate

    @property
    def joint_angles(self) -> list[float]:
        """The twelve joints of the legs, in the order of LEG_NAMES."""
        return [joint[0] for joint in self._p.getJointStates(self._robot, _JOINTS, physicsClientId=self._client)]

    @property
    def feet_down(self) -> tuple[bool, bool, bool, bool]:
        """Which feet touch the ground."""
        points = self._p.getContactPoints(bodyA=self._robot, physicsClientId=self._client)
        down = {point[3] for point in points if point[9] > 0.0}
        front_left, front_right, rear_left, rear_right = (foot in down for foot in _FEET)
        return front_left, front_right, rear_left, rear_right

    def push(self, vx_mps: float, vy_mps: float, roll_rate_radps: float = 0.0, pitch_rate_radps: float = 0.0) -> None:
        """Adds to the base's velocity, in the world frame, as a kick would."""
        p, c = self._p, self._client
        (vx, vy, vz), (wx, wy, wz) = p.getBaseVelocity(self._robot, physicsClientId=c)
        p.resetBaseVelocity(
            self._robot,
            (vx + vx_mps, vy + vy_mps, vz),
            (wx + roll_rate_radps, wy + pitch_rate_radps, wz),
            physicsClientId=c,
        )

    def close(self) -> None:
        """Disconnects the client; safe to call again."""
        if self._client >= 0:
            self._p.disconnect(physicsClientId=self._client)
            self._client = -1

    def _control(self, command: Array, angles: list[float]) -> None:
        p, c = self._p, self._client
        position, orientation = p.getBasePositionAndOrientation(self._robot, physicsClientId=c)
        position, orientation = p.multiplyTransforms(position, orientation, *self._to_root)
        velocity, spin = p.getBaseVelocity(self._robot, physicsClientId=c)
        # The velocity of the base's centre of mass stands for the root's: they lie a centimetre apart.
        root = np.array([*position, *orientation, *velocity, *spin])
        if self._uneven is not None and self._steps % LOOK_EVERY == 0:
            seen_m = floor_height_m(self._uneven, self._at(self._patch_m, *self.position_m[:2], self.yaw_rad))
            if float(np.ptp(seen_m)) > 0.0:
                self.trot.warn()
        self._steps += 1
        self.trot.step(command, root, np.array(angles), self.feet_down, CONTROL_S)
        state = self.trot.state
        self._motors = list(zip(*self.trot.springs, self._limits, strict=True))
        self._recent.append(state["velocity"].tolist())
        roll, pitch = state["tilt_rad"].tolist()
        low = state["height_m"] < self.config.fall_height * standing_height_m(self.spec)
        self.fallen = self.fallen or low or math.hypot(roll, pitch) > self.config.fall_tilt_rad

    @staticmethod
    def _at(points_base_m: Array, x_m: float, y_m: float, yaw_rad: float) -> Array:
        """(n, 2) points of the base's frame in the world's."""
        c, s = math.cos(yaw_rad), math.sin(yaw_rad)
        return np.asarray(points_base_m @ np.array([[c, s], [-s, c]]) + [x_m, y_m])

    def _read_pose(self) -> None:
        p, c = self._p, self._client
        pose = p.getBasePositionAndOrientation(self._robot, physicsClientId=c)
        self.position_m, self.orientation = p.multiplyTransforms(*pose, *self._to_root)
        x, y, z, w = self.orientation
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        self.yaw_rad += math.remainder(yaw - self.yaw_rad, math.tau)
