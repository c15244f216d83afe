"""Scans with the truth about what each beam hit: what `robonav.learning.sight` learns from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robonav.learning.sight_data import SightData
from robonav.mapping.sight import hits, tracked
from robonav.mapping.tracks import MoverTracker
from robonav.types import Policy
from sim.env import NavigateEnv
from sim.sensor_config import SensorConfig

Doubles = NDArray[np.float64]
MOVES_MPS = 0.1
ON_BODY_M, ON_BODY_ERRING_M = 0.12, 0.2  # a beam that ends so near to a mover's disc hit it; the latter if sensors err
BESIDE_DOOR_M = 0.2  # beams that end so near to a door's circle are left out: what they hit turns


def labelled_episode(
    env: NavigateEnv, policy: Policy, scene: str, seed: int, steps: int, episode: int, ahead: int
) -> SightData:
    """The ticks of one episode of a scene preset, of which at most `steps`, driven by a policy.

    Args:
        env: with perfect or erring sensors.
        policy: drives.
        scene: preset.
        seed: of scene and policy.
        steps: at most.
        episode: its number in the data.
        ahead: ticks over which the velocity of what was hit is averaged; what is left of the episode near its end.
    """
    env.reset(seed=seed, options={"preset": scene})
    tracker = MoverTracker(env.robot)
    tracks, state, done = tracker.reset(), policy.reset(seed), False
    near_m = ON_BODY_M if env.sensors == SensorConfig() else ON_BODY_ERRING_M
    scans: list[Doubles] = []
    poses, words, hit, turns, told = [], [], [], [], []
    places = [env.movers_world[:, :2]]
    while not done and len(scans) < steps:
        observation = env.observation()
        state, decision = policy.act(state, observation)
        tracks, of_beam = tracker.update(tracks, observation)
        scan = hits(observation.scan_m, env.robot.lidar)
        who, known = _hit(env, scan, near_m)
        scans.append(scan)
        poses.append(np.asarray(observation.pose_odom_base, np.float64))
        words.append(tracked(tracks, of_beam, tracker.moving(tracks)).rows()[0])
        hit.append(who)
        told.append(known)
        turns.append(float(observation.pose_odom_base[2]) - env.yaw_world_rad)
        action = env.robot.velocity_to_action(decision.command.velocity).astype(np.float32)
        _, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        places.append(env.movers_world[:, :2])
    velocity, moves = _motion(np.array(places), np.array(hit), np.array(turns), env.robot.dt_s, ahead)
    number, scan_m = np.full(len(scans), episode), np.array(scans, np.float32)
    return SightData(number, scan_m, np.array(poses), np.array(words, np.float32), velocity, moves, np.array(told))


def _hit(env: NavigateEnv, scan_m: Doubles, near_m: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(B,) number of the mover that each beam hit, -1 for none, and (B,) where that is known."""
    movers = env.scene.movers
    who, known = np.full(len(scan_m), -1), scan_m > 0
    if not movers:
        return who, known
    lidar, (x, y), yaw = env.robot.lidar, env.position_world_m, env.yaw_world_rad
    angle = lidar.angles_rad + yaw
    px = x + lidar.mount_x_m * np.cos(yaw) + scan_m * np.cos(angle)
    py = y + lidar.mount_x_m * np.sin(yaw) + scan_m * np.sin(angle)
    at, radius = env.movers_world, np.array([mover.circle_m for mover in movers])
    gap = np.hypot(px[:, None] - at[:, 0], py[:, None] - at[:, 1]) - radius
    door = np.array([mover.kind == "door" for mover in movers])
    walks = np.where(door, np.inf, gap)
    who = np.where(walks.min(axis=1) < near_m, walks.argmin(axis=1), -1)
    return who, known & ~((gap < BESIDE_DOOR_M) & door).any(axis=1)


def _motion(
    places: Doubles, hit: NDArray[np.int64], turns: Doubles, dt_s: float, ahead: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, B, 2) velocity in odom of what beams hit, averaged over the ticks ahead, and (N, B) whether it moves now.

    Args:
        places: (N + 1, M, 2) of the movers in the world.
        hit: (N, B).
        turns: (N,) yaw in odom less that in the world.
        dt_s: of a tick.
        ahead: ticks.
    """
    n, beams = hit.shape
    velocity, moves = np.zeros((n, beams, 2), np.float32), np.zeros((n, beams), np.bool_)
    if not places.shape[1]:
        return velocity, moves
    for t in range(n):
        end, before = min(t + ahead, n), max(t - 1, 0)
        then = (places[end] - places[t]) / ((end - t) * dt_s)
        now = np.hypot(*(places[t] - places[before]).T) / dt_s
        c, s = np.cos(turns[t]), np.sin(turns[t])
        then = np.stack([c * then[:, 0] - s * then[:, 1], s * then[:, 0] + c * then[:, 1]], -1)
        on = hit[t] >= 0
        velocity[t] = np.where(on[:, None], then[hit[t]], 0.0)
        moves[t] = on & ((now > MOVES_MPS) | (np.hypot(*then.T) > MOVES_MPS))[hit[t]]
    return velocity, moves
