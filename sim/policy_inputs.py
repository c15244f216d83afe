"""What a policy reads, made from a robot's observations of one episode: the arrays of `PolicyInput`.

`robonav.planning.SituationTracker` is what the robot itself runs. Where numba is installed, its compiled twin of
`sim.analytic` takes its place: it gives the same arrays in a tenth of the time.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import Observation, PolicyInput, RobotSpec

Arrays = dict[str, NDArray[Any]]


class PolicyInputs(Protocol):
    """Keeps the map and the route of an episode."""

    def reset(self) -> None:
        """Nothing known yet."""

    def arrays(self, observation: Observation) -> Arrays:
        """The arrays of `PolicyInput` after one more observation; none of them is kept."""


class TrackedInputs:
    """By the tracker that the robot runs."""

    def __init__(self, spec: RobotSpec, config: SituationConfig | None = None) -> None:
        self._tracker = SituationTracker(spec, config)
        self._situation: Situation = self._tracker.reset()

    def reset(self) -> None:
        """Nothing known yet."""
        self._situation = self._tracker.reset()

    def arrays(self, observation: Observation) -> Arrays:
        """See `PolicyInputs.arrays`."""
        self._situation = self._tracker.update(self._situation, observation)
        policy_input: PolicyInput = self._tracker.policy_input(self._situation, observation)
        return {name: np.array(value) for name, value in policy_input.arrays().items()}


class CompiledInputs:
    """By the compiled tracker, as a batch of one."""

    def __init__(self, spec: RobotSpec, config: SituationConfig | None = None) -> None:
        from sim.analytic.situation import BatchTracker, empty_policy_input

        self._tracker = BatchTracker(spec, 1, config)
        self._out = empty_policy_input(spec, 1)
        self._made = {name: self._out[name] for name in ("flow_mps", "local_map", "goal_base_m", "waypoints_base_m")}
        self._nothing = np.zeros((1, spec.lidar.beams), np.float32)
        self._world = np.zeros(1, np.int64)
        self._mapped = False

    def reset(self) -> None:
        """Nothing known yet."""
        self._tracker.reset(self._world)
        self._mapped = False

    def arrays(self, observation: Observation) -> Arrays:
        """See `PolicyInputs.arrays`."""
        scan = observation.scan_m
        # beams of length 0 see nothing, so that the map only grows, as it does without a scan
        beams = self._nothing if scan is None else scan[None]
        pose, goal = observation.pose_odom_base[None], observation.goal_odom_m[None]
        self._tracker.update(beams, pose, goal, has_scan=np.array([scan is not None]))
        self._tracker.policy_input(pose, goal, self._made)
        self._mapped = self._mapped or scan is not None
        return {
            "scan_m": beams[0].copy(),
            "flow_mps": self._out["flow_mps"][0].copy(),
            "local_map": self._out["local_map"][0].copy() if self._mapped else np.zeros_like(self._out["local_map"][0]),
            "goal_base_m": self._out["goal_base_m"][0].copy(),
            "waypoints_base_m": self._out["waypoints_base_m"][0].copy(),
            "twist_base": observation.twist_base.copy(),
            "tilt_rad": observation.tilt_rad.copy(),
            "last_command": observation.last_command.copy(),
            "robot": self._tracker.spec.dynamics,
            "present": np.array([scan is not None, self._mapped, 1.0, 1.0], np.float32),
        }


def policy_inputs(spec: RobotSpec, config: SituationConfig | None = None) -> PolicyInputs:
    """The faster of the two that this machine has."""
    return (CompiledInputs if find_spec("numba") is not None else TrackedInputs)(spec, config)
