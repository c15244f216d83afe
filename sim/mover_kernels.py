"""One step of every mover of a world, compiled; `sim.movers` explains the arrays and the behaviours.

Each mover reads the others as they were at the beginning of the step, so that their order does not matter. `movers`,
`ways` and `state` are those of one world: records (M,) and points (M, W, 2).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from sim.mover_geometry import (
    box_gap,
    door_pose,
    door_travel_m,
    door_zone_gap,
    robot_gap,
    segment_gap,
    static_gap,
    wrapped,
)

Array = np.ndarray[Any, Any]
NONE, WAYPOINT, BOUNCING, CROSSING, REACTIVE, DOOR = range(6)
OPEN, CLOSING, CLOSED, OPENING = range(4)  # stages of a door
STEP_MAX_S = 0.05  # at 1.5 m/s a step stays below the smallest radius, so nothing is jumped over
SPEED_MAX_MPS = 1.5  # of anyone who walks
YAW_RATE_MAX_RADPS = 3.0
YIELD_GAP_M = 0.15  # a mover that heeds the robot goes no nearer than this
CROSSING_TRIGGER_M = 2.5  # a robot this near to its line makes a crossing mover go
CROSSING_REST_S = 1.0
DOOR_GAP_M = 0.25  # a door does not close on what is this near to the doorway
SWING_GAP_M = 0.05  # a hinged door does not open onto a robot this near to its swing; beyond half of a leaf's thickness
TURN_BACK_S = 4.0  # a reactive mover that is held up for so long turns back
# Helbing and Molnar, "Social force model for pedestrian dynamics", Phys. Rev. E 51 (1995), section III.
RELAX_S = 0.5
V0_M2PS2, SIGMA_M, STEP_AHEAD_S = 2.1, 0.3, 2.0
WALL_MPS2, WALL_RANGE_M = 14.3, 0.2  # U0 / R = 10 / 0.2 at the distance of a body's radius of 0.25 m
SIGHT_COS, OUT_OF_SIGHT = math.cos(math.radians(100.0)), 0.5
SPEED_OVER = 1.3  # of the wanted speed, under force; never beyond SPEED_MAX_MPS
FORCE_MAX_MPS2 = 20.0
KEEP_RIGHT_RAD = 0.15  # turns the force, so that two who meet head-on pass each other


@njit(cache=True, nogil=True)
def next_stage(stage: int, count: int, closed: int) -> int:
    """The next leg of a route: stages 0 to count - 1 lead outwards to that point, those above back again."""
    return (stage + 1) % (count - 1) if closed else (stage + 1) % (2 * count - 2)


@njit(cache=True, nogil=True)
def stage_target(stage: int, count: int) -> int:
    """Index of the waypoint to which a stage leads."""
    return stage if stage < count else 2 * (count - 1) - stage


@njit(cache=True, nogil=True)
def turned_back(stage: int, count: int) -> int:
    """The stage that leads back along the leg of `stage`, on a route that is not closed."""
    if stage == 0:
        return 1
    if stage < count:
        return (2 * (count - 1) - (stage - 1)) % (2 * count - 2)
    return 2 * (count - 1) - stage + 1


@njit(cache=True, nogil=True)
def obstacle_gap(
    movers: Array,
    ways: Array,
    before: Array,
    boxes: Array,
    cylinders: Array,
    bounds_m: Array,
    m: int,
    px: float,
    py: float,
    limit_m: float,
) -> tuple[float, float, float]:
    """`static_gap`, with the doors as they are. Unless open, a door's whole zone is solid for those outside of it."""
    best, nx, ny = static_gap(boxes, cylinders, bounds_m, px, py, limit_m)
    for d in range(movers.shape[0]):
        if movers[d].behaviour != DOOR:
            continue
        gap, gx, gy = door_zone_gap(movers[d], ways[d], before[m].x, before[m].y)
        if before[d].progress < 1.0 and gap >= 0.999 * movers[m].radius_m:
            gap, gx, gy = door_zone_gap(movers[d], ways[d], px, py)
        else:
            c, s = math.cos(before[d].yaw), math.sin(before[d].yaw)
            half_l, half_w = movers[d].half_length_m, movers[d].half_width_m
            gap, gx, gy = box_gap(px, py, before[d].x, before[d].y, half_l, half_w, c, s)
        if gap < best:
            best, nx, ny = gap, gx, gy
    return best, nx, ny


@njit(cache=True, nogil=True)
def social_force(movers: Array, before: Array, robot: Array, m: int) -> tuple[float, float]:
    """Repulsion of the other movers and the robot, equations 3, 4 and 8; distances are between the bodies' edges."""
    x, y, radius = before[m].x, before[m].y, movers[m].radius_m
    hx, hy = math.cos(before[m].yaw), math.sin(before[m].yaw)
    total_x, total_y = 0.0, 0.0
    count = movers.shape[0]
    for j in range(count + 1):
        if j < count:
            if j == m or movers[j].behaviour == NONE or movers[j].behaviour == DOOR:
                continue
            ox, oy, vx, vy, size = before[j].x, before[j].y, before[j].vx, before[j].vy, movers[j].radius_m
        else:
            if robot[6] <= 0.0 or movers[m].ignores_robot:
                continue
            ox, oy, vx, vy = robot[0], robot[1], robot[3], robot[4]
            size = math.sqrt(robot[6] * robot[6] + robot[7] * robot[7])
        rx, ry = x - ox, y - oy
        r = math.sqrt(rx * rx + ry * ry)
        if r < 1e-6 or r > 5.0:
            continue
        shrunk = max(r - radius - size, 0.02)
        ux, uy = rx / r, ry / r
        sx, sy = ux * shrunk - vx * STEP_AHEAD_S, uy * shrunk - vy * STEP_AHEAD_S
        ahead = math.sqrt(sx * sx + sy * sy)
        square = (shrunk + ahead) ** 2 - (vx * vx + vy * vy) * STEP_AHEAD_S**2
        semi = max(0.5 * math.sqrt(max(square, 0.0)), 0.05)
        gx, gy = ux, uy
        if ahead > 1e-6:
            gx, gy = gx + sx / ahead, gy + sy / ahead
        strength = V0_M2PS2 / SIGMA_M * math.exp(-semi / SIGMA_M) * (shrunk + ahead) / (4.0 * semi)
        fx, fy = strength * gx, strength * gy
        if -(hx * fx + hy * fy) < SIGHT_COS * math.sqrt(fx * fx + fy * fy):  # it comes from behind
            fx, fy = OUT_OF_SIGHT * fx, OUT_OF_SIGHT * fy
        total_x, total_y = total_x + fx, total_y + fy
    c, s = math.cos(-KEEP_RIGHT_RAD), math.sin(-KEEP_RIGHT_RAD)
    return c * total_x - s * total_y, s * total_x + c * total_y


@njit(cache=True, nogil=True)
def step_door(movers: Array, ways: Array, state: Array, before: Array, robot: Array, m: int, h: float) -> None:
    """Open, closing, closed, opening; what it does about a robot in its way stands in `sim.movers`."""
    door, way = movers[m], ways[m]
    travel_s = door_travel_m(door, way) / door.speed_mps
    wait_s = max((door.period_s - 2.0 * travel_s) / 2.0, 0.0)
    stage, progress, timer_s = before[m].stage, before[m].progress, before[m].timer_s + h
    near = 1e9  # of anyone's edge to the zone
    for j in range(movers.shape[0]):
        if movers[j].behaviour != NONE and movers[j].behaviour != DOOR:
            gap = door_zone_gap(door, way, before[j].x, before[j].y)[0]
            near = min(near, gap - movers[j].radius_m)
    swings = near > -0.02  # walkers stop right at the zone
    if robot[6] > 0.0 and not door.ignores_robot:
        gap = door_zone_gap(door, way, robot[0], robot[1])[0]
        robot_near = gap - math.sqrt(robot[6] * robot[6] + robot[7] * robot[7])
        swings = swings and robot_near > SWING_GAP_M
        near = min(near, robot_near)
    if stage == OPEN and timer_s >= wait_s and near > DOOR_GAP_M:
        stage = CLOSING
    elif stage == CLOSING:
        if near <= DOOR_GAP_M:
            stage = OPENING
        else:
            progress = max(progress - h / travel_s, 0.0)
            if progress == 0.0:
                stage, timer_s = CLOSED, 0.0
    elif stage == CLOSED and timer_s >= wait_s:
        stage = OPENING
    elif stage == OPENING and (door.waypoints == 2 or swings):
        progress = min(progress + h / travel_s, 1.0)
        if progress == 1.0:
            stage, timer_s = OPEN, 0.0
    x, y, yaw = door_pose(door, way, progress)
    state[m].vx, state[m].vy = (x - before[m].x) / h, (y - before[m].y) / h
    state[m].yaw_rate = (yaw - before[m].yaw) / h
    state[m].x, state[m].y, state[m].yaw = x, y, yaw
    state[m].stage, state[m].timer_s, state[m].progress = stage, timer_s, progress


@njit(cache=True, nogil=True)
def walked(mover: Any, way: Array, stage: int, x: float, y: float, left_m: float) -> tuple[float, float, int]:
    """The place `left_m` further along the route, and the stage there."""
    for _ in range(8):
        k = stage_target(stage, mover.waypoints)
        dx, dy = way[k, 0] - x, way[k, 1] - y
        away = math.sqrt(dx * dx + dy * dy)
        if away > left_m:
            return x + dx * left_m / away, y + dy * left_m / away, stage
        x, y, left_m = way[k, 0], way[k, 1], left_m - away
        stage = next_stage(stage, mover.waypoints, mover.closed)
    return x, y, stage


@njit(cache=True, nogil=True)
def crossed(mover: Any, way: Array, old: Any, robot: Array, h: float) -> tuple[float, float, int, float]:
    """Place, stage and timer. Stages 0 and 2 wait at either end for the robot or the end of the time; 1 and 3 cross."""
    x, y, stage = old.x, old.y, old.stage
    if stage % 2 == 0:
        timer_s = old.timer_s + h
        near = CROSSING_TRIGGER_M + 1.0
        if robot[6] > 0.0:
            near = segment_gap(robot[0], robot[1], way[0, 0], way[0, 1], way[1, 0], way[1, 1])[0]
        rested = timer_s >= min(CROSSING_REST_S, mover.period_s)
        goes = timer_s >= mover.period_s or (rested and near < CROSSING_TRIGGER_M)
        return x, y, stage + 1 if goes else stage, timer_s
    k = 1 if stage == 1 else 0
    dx, dy = way[k, 0] - x, way[k, 1] - y
    away, left_m = math.sqrt(dx * dx + dy * dy), mover.speed_mps * h
    if away > left_m:
        return x + dx * left_m / away, y + dy * left_m / away, stage, 0.0
    return way[k, 0], way[k, 1], (stage + 1) % 4, 0.0


@njit(cache=True, nogil=True)
def mirrored(vx: float, vy: float, nx: float, ny: float) -> tuple[float, float]:
    """A velocity, mirrored at a surface with this normal unless it leads away from it."""
    towards = min(vx * nx + vy * ny, 0.0)
    return vx - 2.0 * towards * nx, vy - 2.0 * towards * ny


@njit(cache=True, nogil=True)
def accelerated(
    mover: Any, old: Any, tx: float, ty: float, fx: float, fy: float, wall: tuple[float, float, float], h: float
) -> tuple[float, float]:
    """The velocity under the force (fx, fy) of others, the wall's and the drive to the target (equations 2, 5, 9)."""
    push = WALL_MPS2 * math.exp(-max(wall[0] - mover.radius_m, 0.0) / WALL_RANGE_M)
    fx, fy = fx + push * wall[1], fy + push * wall[2]
    strength = math.sqrt(fx * fx + fy * fy)
    if strength > FORCE_MAX_MPS2:
        fx, fy = fx * FORCE_MAX_MPS2 / strength, fy * FORCE_MAX_MPS2 / strength
    dx, dy = tx - old.x, ty - old.y
    away = max(math.sqrt(dx * dx + dy * dy), 1e-9)
    vx = old.vx + (fx + (mover.speed_mps * dx / away - old.vx) / RELAX_S) * h
    vy = old.vy + (fy + (mover.speed_mps * dy / away - old.vy) / RELAX_S) * h
    fast = math.sqrt(vx * vx + vy * vy)
    top = min(SPEED_OVER * mover.speed_mps, SPEED_MAX_MPS)
    return (vx * top / fast, vy * top / fast) if fast > top else (vx, vy)


@njit(cache=True, nogil=True)
def step_walker(
    movers: Array,
    ways: Array,
    state: Array,
    before: Array,
    boxes: Array,
    cylinders: Array,
    bounds_m: Array,
    robot: Array,
    m: int,
    h: float,
) -> None:
    """A step of any mover that is no door: what its behaviour wants, then the walls, then the robot's room."""
    mover, way, old = movers[m], ways[m], before[m]
    radius, behaviour, stage, timer_s = mover.radius_m, mover.behaviour, old.stage, old.timer_s
    x, y, vx, vy = old.x, old.y, old.vx, old.vy
    heeds = not mover.ignores_robot
    if behaviour == WAYPOINT:
        x, y, stage = walked(mover, way, stage, x, y, mover.speed_mps * h)
    elif behaviour == CROSSING:
        x, y, stage, timer_s = crossed(mover, way, old, robot, h)
    else:
        ahead_m = radius + 1.0
        if behaviour == BOUNCING:
            x, y, ahead_m = x + vx * h, y + vy * h, radius
        wall = obstacle_gap(movers, ways, before, boxes, cylinders, bounds_m, m, x, y, ahead_m)
        if behaviour == BOUNCING:
            if wall[0] < radius:
                vx, vy = mirrored(vx, vy, wall[1], wall[2])
            if heeds and robot[6] > 0.0:
                c, s = math.cos(robot[2]), math.sin(robot[2])
                gap, nx, ny = box_gap(x, y, robot[0], robot[1], robot[6], robot[7], c, s)
                if gap < radius + 2.0 * YIELD_GAP_M:
                    vx, vy = mirrored(vx, vy, nx, ny)
        else:
            k = stage_target(stage, mover.waypoints)
            fx, fy = social_force(movers, before, robot, m)
            vx, vy = accelerated(mover, old, way[k, 0], way[k, 1], fx, fy, wall, h)
            timer_s = timer_s + h if vx * vx + vy * vy < (0.15 * mover.speed_mps) ** 2 else 0.0
            if (way[k, 0] - x) ** 2 + (way[k, 1] - y) ** 2 < (radius + 0.1) ** 2:
                stage = next_stage(stage, mover.waypoints, mover.closed)
            elif timer_s > TURN_BACK_S and not mover.closed:
                stage, timer_s = turned_back(stage, mover.waypoints), 0.0
        x, y = old.x + vx * h, old.y + vy * h
    stays = True  # unless a place outside of walls and doors is found near the wanted one
    for _ in range(4):
        gap, nx, ny = obstacle_gap(movers, ways, before, boxes, cylinders, bounds_m, m, x, y, radius)
        if gap >= radius - 1e-6:
            stays = False
            break
        x, y = x + (radius - gap) * nx, y + (radius - gap) * ny
    stays = stays and static_gap(boxes, cylinders, bounds_m, x, y, radius)[0] < radius - 1e-6
    if heeds:
        gap = robot_gap(robot, x, y)
        if gap < radius + YIELD_GAP_M and gap < robot_gap(robot, old.x, old.y):
            stays = True
            if behaviour != REACTIVE:  # it did not get there after all
                stage, timer_s = old.stage, old.timer_s
    if stays:
        x, y = old.x, old.y
    dx, dy = x - old.x, y - old.y
    if behaviour != BOUNCING:  # whose velocity is its memory
        vx, vy = dx / h, dy / h
    rate = 0.0
    if dx * dx + dy * dy > 1e-8:
        rate = wrapped(math.atan2(dy, dx) - old.yaw) / h
        rate = min(max(rate, -YAW_RATE_MAX_RADPS), YAW_RATE_MAX_RADPS)
    state[m].x, state[m].y, state[m].yaw = x, y, wrapped(old.yaw + rate * h)
    state[m].vx, state[m].vy, state[m].yaw_rate = vx, vy, rate
    state[m].stage, state[m].timer_s = stage, timer_s


@njit(cache=True, nogil=True)
def advance_world(
    movers: Array,
    ways: Array,
    state: Array,
    boxes: Array,
    cylinders: Array,
    bounds_m: Array,
    robot: Array,
    dt_s: float,
) -> float:
    """Moves one world's movers on by `dt_s`, in place. Returns metres that no point of any of them exceeded."""
    moved_m = 0.0
    if dt_s <= 0.0:
        return moved_m
    steps = max(1, math.ceil(dt_s / STEP_MAX_S - 1e-9))
    h = dt_s / steps
    for _ in range(steps):
        before = state.copy()
        furthest = 0.0
        for m in range(movers.shape[0]):
            if movers[m].behaviour == NONE:
                continue
            if movers[m].behaviour == DOOR:
                step_door(movers, ways, state, before, robot, m, h)
            else:
                step_walker(movers, ways, state, before, boxes, cylinders, bounds_m, robot, m, h)
            dx, dy = state[m].x - before[m].x, state[m].y - before[m].y
            moved = math.sqrt(dx * dx + dy * dy)
            if movers[m].half_length_m > 0.0:  # a disc may turn as it likes
                moved += abs(wrapped(state[m].yaw - before[m].yaw)) * movers[m].radius_m
            furthest = max(furthest, moved)
        moved_m += furthest
    return moved_m


@njit(cache=True, nogil=True)
def advance_worlds(
    movers: Array,
    ways: Array,
    state: Array,
    boxes: Array,
    box_count: Array,
    cylinders: Array,
    cylinder_count: Array,
    bounds_m: Array,
    robots: Array,
    dt_s: float,
    moved_m: Array,
) -> None:
    """`advance_world` for every world of a batch, in place; `moved_m` (B,) takes what it returns."""
    for b in range(movers.shape[0]):
        solid, posts = boxes[b, : box_count[b]], cylinders[b, : cylinder_count[b]]
        moved_m[b] = advance_world(movers[b], ways[b], state[b], solid, posts, bounds_m[b], robots[b], dt_s)
