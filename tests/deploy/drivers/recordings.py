"""Logs whose observations count: tick k of a robot that drives ahead lies k centimetres from the start."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from deploy.episode_log import write_episode
from robonav.config import load_robot, to_mapping
from robonav.types import Decision, Observation, VelocityCommand

FIRST_NS = 5_000_000_000
ROBOT = load_robot("a1")


def observation(tick: int) -> Observation:
    return Observation(
        stamp_ns=FIRST_NS + tick * round(ROBOT.dt_s * 1e9),
        pose_odom_base=np.array([tick / 100, 0, 0], np.float32),
        twist_base=np.array([0.1, 0, 0], np.float32),
        tilt_rad=np.zeros(2, np.float32),
        goal_odom_m=np.array([2, 0], np.float32),
        last_command=np.array([0.1, 0, 0], np.float32),
        scan_m=np.full(ROBOT.lidar.beams, 1 + tick / 100, np.float32),
    )


def write_recording(path: Path, ticks: int, outcome: str = "timeout") -> None:
    decision = Decision(VelocityCommand(0.1, 0.0, 0.0, 0))
    steps = [(observation(k), decision if k < ticks - 1 else None) for k in range(ticks)]
    write_episode(path, steps, outcome, {"robot": json.dumps(to_mapping(ROBOT))}, 0, [1.0] * ticks)
