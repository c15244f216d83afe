"""The egocentric crop of `robonav.mapping.crop` and the waypoints of a route, compiled."""

from __future__ import annotations

import math

import numpy as np

from robonav.mapping.grid import FREE_BELOW, OCCUPIED_ABOVE
from sim.analytic.bits import Array, int64, line_cells, trailing_zeros
from sim.analytic.jit import inner
from sim.analytic.maps import PAD, MapNumbers, Maps

ON = np.uint8(255)
OFF = np.uint8(0)
_ABOVE, _BELOW = np.float32(OCCUPIED_ABOVE), np.float32(FREE_BELOW)
_ZERO = np.uint64(0)


@inner
def crop_map(numbers: MapNumbers, maps: Maps, b: int, pose: Array, resolution_m: float, out: Array) -> None:
    """Writes occupied and free round the robot into `out` (3, C, C); see `egocentric_crop`."""
    size, cell = out.shape[1], numbers.resolution_m
    scale = resolution_m / cell
    cos, sin = math.cos(np.float64(pose[2])), math.sin(np.float64(pose[2]))
    column_0, row_0 = maps.frame[b, 0], maps.frame[b, 1]
    width, height = maps.frame[b, 2] - column_0, maps.frame[b, 3] - row_0
    shift_x, shift_y = column_0 - maps.corner[b, 0], row_0 - maps.corner[b, 1]
    middle = (size - 1) / 2
    robot_column = (np.float64(pose[0]) - column_0 * cell) / cell - 0.5
    robot_row = (np.float64(pose[1]) - row_0 * cell) / cell - 0.5
    reach = math.ceil(size * scale * 0.7072) + 2
    nearest_column, nearest_row = int64(np.rint(robot_column)), int64(np.rint(robot_row))
    left, low = max(nearest_column - reach, 0), max(nearest_row - reach, 0)
    columns = min(max(nearest_column + reach, 0), width) - left
    rows = min(max(nearest_row + reach, 0), height) - low
    log_odds, bits, occupied, free = maps.log_odds[b], maps.occupied[b], out[0], out[1]
    if columns <= 0 or rows <= 0:
        out[:2] = OFF
        return
    robot_column, robot_row = robot_column - left, robot_row - low
    left, low = left + shift_x, low + shift_y
    # OpenCV's warpAffine takes the nearest cell, with single precision and one rounding for a product and its sum
    ax, bx = np.float64(np.float32(scale * sin)), np.float32(scale * -cos)
    ay, by = np.float64(np.float32(scale * -cos)), np.float32(scale * -sin)
    cx = np.float32(scale * ((cos - sin) * middle) + robot_column)
    cy = np.float32(scale * ((cos + sin) * middle) + robot_row)
    side = log_odds.shape[0]
    flat, at, steps = log_odds.reshape(side * side), np.empty(size, np.int32), np.arange(0.0, size)
    end32, left32, low32, side32 = np.int32(side - 1), np.int32(left), np.int32(low), np.int32(side)
    for i in range(size):
        from_x, from_y = np.float64(bx * np.float32(i) + cx), np.float64(by * np.float32(i) + cy)
        for j in range(size):  # a loop of its own, in vector registers; what lies outside the square is 0 like its rim
            x32 = np.int32(np.int32(np.rint(np.float32(ax * steps[j] + from_x))) + left32)
            y32 = np.int32(np.int32(np.rint(np.float32(ay * steps[j] + from_y))) + low32)
            x32, y32 = max(min(x32, end32), np.int32(0)), max(min(y32, end32), np.int32(0))
            at[j] = np.int32(y32 * side32) + x32
        for j in range(size):
            value = flat[at[j]]
            occupied[i, j] = ON if value > _ABOVE else OFF
            free[i, j] = ON if value < _BELOW else OFF
    # every occupied cell is in the crop: the samples alone would skip thin posts
    turn_x, turn_y = cos / scale, -sin / scale
    first, last = (left + PAD) >> 6, (left + columns - 1 + PAD) >> 6
    for r in range(rows):
        y = r - robot_row
        for w in range(first, last + 1):
            word = bits[low + r, w]
            while word != _ZERO:
                k = trailing_zeros(word)
                word &= word - np.uint64(1)
                c = (w << 6) + k - PAD - left
                if not 0 <= c < columns:
                    continue
                x = c - robot_column
                i = int64(np.rint(middle - (x * turn_x - y * turn_y)))
                j = int64(np.rint(middle - (x * turn_y + y * turn_x)))
                if 0 <= i < size and 0 <= j < size:
                    occupied[i, j], free[i, j] = ON, OFF


@inner
def draw_route(route: Array, count: int, pose: Array, resolution_m: float, channel: Array, cells: Array) -> None:
    """Draws `count` points of a route (n, 2) in odom into the crop's channel (C, C), after clearing it."""
    channel[:] = OFF
    size = channel.shape[0]
    cos, sin = math.cos(np.float64(pose[2])), math.sin(np.float64(pose[2]))
    middle, cells_per_m = (size - 1) / 2, 1.0 / resolution_m
    old_column, old_row = int64(0), int64(0)
    for i in range(count):
        x, y = np.float64(route[i, 0]) - np.float64(pose[0]), np.float64(route[i, 1]) - np.float64(pose[1])
        ahead, aside = x * cos + y * sin, y * cos - x * sin
        row = (int64(np.rint(min(max((middle - ahead * cells_per_m) * 16.0, -1e6), 1e6))) + 8) >> 4
        column = (int64(np.rint(min(max((middle - aside * cells_per_m) * 16.0, -1e6), 1e6))) + 8) >> 4
        if i and (max(row, old_row) >= 0 and min(row, old_row) < size):
            for k in range(line_cells(old_column, old_row, column, row, size, size, cells)):
                channel[cells[k, 1], cells[k, 0]] = ON
        old_column, old_row = column, row


@inner
def progress_m(route: Array, count: int, pose: Array, from_m: float) -> float:
    """Arc length of the route's point that is closest to the robot, at `from_m` or later."""
    x, y = np.float64(pose[0]), np.float64(pose[1])
    total = 0.0
    for i in range(count - 1):
        dx = np.float64(route[i + 1, 0]) - np.float64(route[i, 0])
        dy = np.float64(route[i + 1, 1]) - np.float64(route[i, 1])
        total += max(math.hypot(dx, dy), 1e-9)
    from_m = min(from_m, total)
    end, least, best = 0.0, math.inf, 0.0
    for i in range(count - 1):
        dx = np.float64(route[i + 1, 0]) - np.float64(route[i, 0])
        dy = np.float64(route[i + 1, 1]) - np.float64(route[i, 1])
        span = max(math.hypot(dx, dy), 1e-9)
        end += span
        if end < from_m:
            continue
        ahead_x, ahead_y = x - np.float64(route[i, 0]), y - np.float64(route[i, 1])
        low = max(from_m - end + span, 0.0)
        along = min(max((ahead_x * dx + ahead_y * dy) / span, low), span)
        away = math.hypot(ahead_x - dx * (along / span), ahead_y - dy * (along / span))
        if away < least:
            least, best = away, end - span + along
    return best


@inner
def waypoints(
    route: Array, count: int, progress: float, lookaheads_m: Array, pose: Array, goal: Array, out: Array
) -> None:
    """Writes the route's points ahead (k, 2) in base; without a route (count 0) on the straight line to the goal."""
    yaw = np.float64(pose[2])
    c, s = math.cos(yaw), math.sin(yaw)
    x, y = np.float64(pose[0]), np.float64(pose[1])
    for k in range(len(lookaheads_m)):
        at = (progress if count else 0.0) + lookaheads_m[k]
        px, py = np.float64(goal[0]), np.float64(goal[1])
        end = 0.0
        for i in range(count - 1 if count else 1):
            ax, ay, bx, by = x, y, px, py
            if count:
                ax, ay = np.float64(route[i, 0]), np.float64(route[i, 1])
                bx, by = np.float64(route[i + 1, 0]), np.float64(route[i + 1, 1])
            begin, end = end, end + math.hypot(bx - ax, by - ay)
            if at < end:
                share = 1.0 / (end - begin)
                px, py = (bx - ax) * share * (at - begin) + ax, (by - ay) * share * (at - begin) + ay
                break
            px, py = bx, by
        dx, dy = px - x, py - y
        out[k, 0], out[k, 1] = np.float32(c * dx + s * dy), np.float32(c * dy - s * dx)
