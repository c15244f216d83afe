"""Odometry of B worlds: poses and goals as seen from each robot's start, as `sim.sensors` has them."""

from __future__ import annotations

import math

import numpy as np

from sim.analytic.batch import State
from sim.analytic.bits import Array
from sim.analytic.jit import kernel
from sim.analytic.tasks import Tasks


def observe(state: State, tasks: Tasks, active: Array, pose: Array, goal: Array, twist: Array) -> None:
    """Writes poses (B, 3), goals (B, 2) in odom and twists (B, 3) of the active worlds, all float32."""
    _observe(state.pose, state.velocity, tasks.start, tasks.goal, active, pose, goal, twist)


@kernel
def _observe(
    world: Array, velocity: Array, start: Array, target: Array, active: Array, pose: Array, goal: Array, twist: Array
) -> None:
    for b in range(len(active)):
        if not active[b]:
            continue
        x0, y0 = start[b, 0], start[b, 1]
        c, s = math.cos(start[b, 2]), math.sin(start[b, 2])
        dx, dy = world[b, 0] - x0, world[b, 1] - y0
        pose[b, 0], pose[b, 1] = np.float32(c * dx + s * dy), np.float32(c * dy - s * dx)
        turned = world[b, 2] - start[b, 2]
        pose[b, 2] = np.float32((turned + math.pi) % (2.0 * math.pi) - math.pi)
        dx, dy = target[b, 0] - x0, target[b, 1] - y0
        goal[b, 0], goal[b, 1] = np.float32(c * dx + s * dy), np.float32(c * dy - s * dx)
        for k in range(3):
            twist[b, k] = np.float32(velocity[b, k])
