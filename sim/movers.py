"""Movers of many worlds at once: pedestrians, doors and other robots as arrays, and one pure step for all of them.

| behaviour | what it does |
|---|---|
| waypoint | follows its route at constant speed, back again from its end (or round, if it is closed) |
| bouncing | straight on from its first waypoint towards its second; mirrored at walls and at the map's edge |
| crossing | waits at one end of its line until the robot is within 2.5 m or `period_s` is over, then crosses |
| reactive | social force (Helbing and Molnar 1995): along its route, giving way to others, walls and the robot |
| door | open, closing, closed, opening, in `period_s`; it does not close on anyone in the doorway |

Those that heed the robot stop before they touch it; those with `ignores_robot` walk on as if it were not there. Nobody
passes through walls, closed doors or the map's edge, or walks faster than 1.5 m/s.

A door that heeds the robot never moves its leaf into it: it does not close while the robot is in the doorway or in the
leaf's swing, opens again if the robot comes in while it closes, and a hinged one stops where it is until the robot has
left its swing. One that ignores the robot moves on; what it touches has collided, and the episode ends with that.

There is no chance in here: what differs between episodes is drawn
with the scene, so equal scenes and equal robots give equal movers, bit for bit, alone or in a batch.

Arrays are padded to M movers a world; behaviour 0 marks the empty places. The step that writes in place, for code that
is compiled itself, is `sim.mover_kernels.advance_world`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robonav.types import RobotSpec, Scene
from sim.geodesic import all_boxes
from sim.mover_geometry import door_pose, door_travel_m
from sim.mover_kernels import BOUNCING, CLOSED, CLOSING, CROSSING, DOOR, OPEN, OPENING, advance_worlds, stage_target

BEHAVIOURS = ("none", "waypoint", "bouncing", "crossing", "reactive", "door")  # in the order of the kernels' numbers
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What does not change in an episode.
MOVER = np.dtype(
    [
        ("behaviour", np.int64),  # index in BEHAVIOURS
        ("waypoints", np.int64),  # how many
        ("closed", np.int64),  # 1 if the route's last point is its first
        ("ignores_robot", np.int64),
        ("radius_m", np.float64),  # of the disc, or of the circle round the box
        ("half_length_m", np.float64),  # of the box; 0 for a disc
        ("half_width_m", np.float64),
        ("speed_mps", np.float64),
        ("period_s", np.float64),
        ("start_phase", np.float64),
    ]
)
# What changes, in the world frame. Bouncing movers keep their wanted velocity in vx, vy.
STATE = np.dtype(
    [
        ("x", np.float64),
        ("y", np.float64),
        ("yaw", np.float64),
        ("vx", np.float64),
        ("vy", np.float64),
        ("yaw_rate", np.float64),
        ("timer_s", np.float64),  # of a wait
        ("progress", np.float64),  # of a door: 0 closed, 1 open
        ("stage", np.int64),  # leg of the route, or stage of a door
    ]
)
Records = NDArray[Any]


class Movers(NamedTuple):
    """Movers of B worlds, padded to M movers of W points; empty places are zero."""

    table: Records  # (B, M) of MOVER
    ways_m: Floats  # (B, M, W, 2)


class StaticShapes(NamedTuple):
    """What stands still, padded to S boxes and C cylinders a world."""

    boxes: Floats  # (B, S, 6) x, y, half length, half width, cos yaw, sin yaw
    box_count: Ints  # (B,)
    cylinders: Floats  # (B, C, 3) x, y, radius
    cylinder_count: Ints  # (B,)
    bounds_m: Floats  # (B, 4) x_min, y_min, x_max, y_max


def movers_of(scenes: Sequence[Scene], count: int = 0, waypoints: int = 0) -> Movers:
    """Movers of scenes as arrays, padded to at least `count` movers of `waypoints` points."""
    size = max([count, *(len(s.movers) for s in scenes)])
    points = max([waypoints, 3, *(len(m.waypoints_m) for s in scenes for m in s.movers)])
    out = Movers(np.zeros((len(scenes), size), MOVER), np.zeros((len(scenes), size, points, 2)))
    for b, scene in enumerate(scenes):
        for m, mover in enumerate(scene.movers):
            way = np.array(mover.waypoints_m, np.float64)
            half_l, half_w = (0.0, 0.0) if mover.box_m is None else (mover.box_m[0] / 2, mover.box_m[1] / 2)
            if mover.behaviour == "door" and len(way) == 3:
                half_l = math.dist(way[0], way[1]) / 2  # the leaf reaches from the hinge to its end
            closed = len(way) > 2 and mover.behaviour != "door" and bool((way[0] == way[-1]).all())
            radius = mover.radius_m if mover.box_m is None else math.hypot(half_l, half_w)
            numbers = (mover.speed_mps, mover.period_s, mover.start_phase)
            kind = (BEHAVIOURS.index(mover.behaviour), len(way), closed, mover.ignores_robot)
            out.table[b, m] = (*kind, radius, half_l, half_w, *numbers)
            out.ways_m[b, m, : len(way)] = way
    return out


def static_shapes_of(scenes: Sequence[Scene], boxes: int = 0, cylinders: int = 0) -> StaticShapes:
    """Walls, boxes and cylinders of scenes as arrays, padded to at least `boxes` and `cylinders`."""
    solids = [all_boxes(s) for s in scenes]
    rounds = [np.asarray(s.cylinders, np.float64).reshape(-1, 3) for s in scenes]
    out = StaticShapes(
        boxes=np.zeros((len(scenes), max([boxes, *map(len, solids)]), 6)),
        box_count=np.array([len(x) for x in solids], np.int64),
        cylinders=np.zeros((len(scenes), max([cylinders, *map(len, rounds)]), 3)),
        cylinder_count=np.array([len(x) for x in rounds], np.int64),
        bounds_m=np.array([s.bounds_m for s in scenes], np.float64).reshape(-1, 4),
    )
    for b, (solid, posts) in enumerate(zip(solids, rounds, strict=True)):
        turned = np.column_stack([solid[:, :2], solid[:, 2:4] / 2, np.cos(solid[:, 4]), np.sin(solid[:, 4])])
        out.boxes[b, : len(solid)] = turned
        out.cylinders[b, : len(posts)] = posts
    return out


def robots_of(poses_world: Any, velocities_base: Any, spec: RobotSpec) -> Floats:
    """(B, 8) rows x, y, yaw, vx, vy, yaw rate (world), half length, half width from (B, 3) poses and velocities."""
    pose = np.asarray(poses_world, np.float64).reshape(-1, 3)
    v = np.asarray(velocities_base, np.float64).reshape(-1, 3)
    c, s = np.cos(pose[:, 2]), np.sin(pose[:, 2])
    half = np.broadcast_to([spec.length_m / 2, spec.width_m / 2], (len(pose), 2))
    return np.column_stack([pose, c * v[:, 0] - s * v[:, 1], s * v[:, 0] + c * v[:, 1], v[:, 2], half])


def no_robots(batch: int) -> Floats:
    """(B, 8) rows for worlds without a robot."""
    return np.zeros((batch, 8))


def initial_state(movers: Movers) -> Records:
    """(B, M) of STATE: everyone at the place of its start phase, turned along its way, walkers at their speed."""
    state = np.zeros(movers.table.shape, STATE)
    for b, m in zip(*np.nonzero(movers.table["behaviour"]), strict=True):
        mover, way = movers.table[b, m], movers.ways_m[b, m]
        state[b, m] = _door_start(mover, way) if mover["behaviour"] == DOOR else _walker_start(mover, way)
    return state


def advance(
    state: Records, movers: Movers, shapes: StaticShapes, robots: Floats, dt_s: float
) -> tuple[Records, Floats]:
    """The state `dt_s` later, and (B,) metres that no point of any mover of a world exceeded. Changes no argument.

    `robots` are the rows of `robots_of`, or of `no_robots`. Steps longer than 0.05 s are divided.
    """
    new, moved_m = state.copy(), np.zeros(len(state))
    advance_worlds(movers.table, movers.ways_m, new, *shapes, robots, float(dt_s), moved_m)
    return new, moved_m


def _walker_start(mover: Any, way: Floats) -> tuple[float, ...]:
    """A record of STATE at the mover's start phase."""
    count, phase, stage = int(mover["waypoints"]), float(mover["start_phase"]), 0
    begin, end, share = way[0], way[1], phase
    if mover["behaviour"] != BOUNCING and not (mover["behaviour"] == CROSSING and phase == 0.0):
        legs = count - 1 if mover["closed"] else 2 * count - 2
        stops = [way[stage_target(k % legs, count)] for k in range(legs + 1)]
        lengths = [math.dist(stops[k], stops[k + 1]) for k in range(legs)]
        left, leg = phase * sum(lengths), 0
        while leg < legs - 1 and left >= lengths[leg]:
            left, leg = left - lengths[leg], leg + 1
        begin, end, share = stops[leg], stops[leg + 1], left / max(lengths[leg], 1e-9)
        stage = 1 + 2 * leg if mover["behaviour"] == CROSSING else (leg + 1) % legs
    x, y = begin + share * (end - begin)
    yaw = math.atan2(end[1] - begin[1], end[0] - begin[0])
    waits = mover["behaviour"] == CROSSING and stage == 0
    speed = 0.0 if waits else float(mover["speed_mps"])
    return float(x), float(y), yaw, speed * math.cos(yaw), speed * math.sin(yaw), 0.0, 0.0, 0.0, stage


def _door_start(door: Any, way: Floats) -> tuple[float, ...]:
    """A record of STATE at the door's start phase; phase 0 has just opened."""
    travel_s = float(door_travel_m(door, way)) / float(door["speed_mps"])
    wait_s = max((float(door["period_s"]) - 2 * travel_s) / 2, 0.0)
    at_s = float(door["start_phase"]) * 2 * (wait_s + travel_s)
    if at_s < wait_s:
        stage, timer_s, progress = OPEN, at_s, 1.0
    elif at_s < wait_s + travel_s:
        stage, timer_s, progress = CLOSING, 0.0, 1.0 - (at_s - wait_s) / travel_s
    elif at_s < 2 * wait_s + travel_s:
        stage, timer_s, progress = CLOSED, at_s - wait_s - travel_s, 0.0
    else:
        stage, timer_s, progress = OPENING, 0.0, (at_s - 2 * wait_s - travel_s) / travel_s
    return (*door_pose(door, way, progress), 0.0, 0.0, 0.0, timer_s, progress, stage)
