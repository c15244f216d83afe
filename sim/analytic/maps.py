"""The mapper of `robonav.mapping` for a batch of worlds, compiled; the same numbers for the same inputs.

The one exception is a map of the largest size (80 m, if nothing else is said) that cuts off a part of a scan: cells at
its very border may then differ.

Every world has a square of `capacity` cells. The robot's `OccupancyGrid` is the part of it that `frame` tells, in whole
lattice cells as there; what lies outside the frame is 0, and round every frame there is at least a rim of one cell.
Occupied cells are kept as bits as well, since those are few and everything asks for them: the crop, the costs of
routes, and the watch over a route.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from robonav.mapping import MapperConfig
from robonav.mapping.grid import OCCUPIED_ABOVE
from robonav.mapping.mapper import growth_cells
from robonav.types import RobotSpec
from sim.analytic.bits import (
    Array,
    bit,
    bits_from,
    clipped,
    erase_line,
    filled_to_right,
    int64,
    quotient,
    trailing_zeros,
)
from sim.analytic.jit import inner

PAD_WORDS = 1  # words of zeros on either side of a row of bits, so that a window of bits never leaves it
PAD = 64 * PAD_WORDS
EMPTY = 1 << 30
_ABOVE = np.float32(OCCUPIED_ABOVE)
_ZERO = np.uint64(0)


class Maps(NamedTuple):
    """Maps of B worlds, S cells a side. Lattice cells as in `robonav.mapping.grid`."""

    log_odds: Array  # (B, S, S) float32
    occupied: Array  # (B, S, S / 64 + 2) uint64; cell (row, column) is bit `column + PAD` of the row
    watched: Array  # (B, S, S / 64 + 2) uint64, as `occupied`: what would block the route
    corner: Array  # (B, 2) int64 lattice cell (column, row) of the square's first cell
    frame: Array  # (B, 4) int64 lattice box column, row, column_end, row_end of the grid
    seen: Array  # (B, 4) int64 lattice box that holds everything that is not 0
    blocked: Array  # (B,) bool: a watched cell became occupied in the last update


class Scratch(NamedTuple):
    """Work space of one world's update."""

    free: Array  # (S, S / 64 + 2) uint64
    hit: Array  # (S, S / 64 + 2) uint64
    points: Array  # (n, 2) float64
    cells: Array  # (n, 2) int64


class MapNumbers(NamedTuple):
    """`MapperConfig` and the lidar as plain numbers."""

    resolution_m: float
    hit: np.float32
    free: np.float32
    low: np.float32
    high: np.float32
    min_range_m: float
    range_m: float
    into_surface_m: float
    mount_x_m: float
    join_m: float  # hits that are closer to each other are joined
    full_circle: bool
    block: int
    limit: int  # cells of the longest side
    least: int  # cells that the map must reach beyond what a scan sees
    margin: int  # and where it grows to
    beams: Array  # (beams, 2) directions in base
    vertices: Array  # (2 beams, 2) directions of the outline's vertices


def map_numbers(spec: RobotSpec, config: MapperConfig) -> MapNumbers:
    """The constants of `robonav.mapping.Mapper`, computed as there."""
    lidar = spec.lidar
    least, margin = growth_cells(spec, config.resolution_m)
    angles = np.repeat(lidar.angles_rad, 2)
    angles[1::2] += lidar.increment_rad / 2
    beams, vertices = np.exp(1j * lidar.angles_rad), np.exp(1j * angles)
    return MapNumbers(
        resolution_m=config.resolution_m,
        hit=np.float32(config.hit_log_odds),
        free=np.float32(config.free_log_odds),
        low=np.float32(config.log_odds_min),
        high=np.float32(config.log_odds_max),
        min_range_m=config.min_range_m,
        range_m=lidar.range_m,
        into_surface_m=0.1 * config.resolution_m,
        mount_x_m=lidar.mount_x_m,
        join_m=spec.width_m,
        full_circle=bool(lidar.fov_rad >= 2 * np.pi - 1e-6),
        block=config.block_cells,
        least=least,
        margin=margin,
        limit=int(config.max_side_m / config.resolution_m) // config.block_cells * config.block_cells,
        beams=np.ascontiguousarray(np.stack([beams.real, beams.imag], axis=-1)),
        vertices=np.ascontiguousarray(np.stack([vertices.real, vertices.imag], axis=-1)),
    )


def new_maps(batch: int, capacity: int) -> Maps:
    """Empty maps; `capacity` is a multiple of 64."""
    words = capacity // 64 + 2 * PAD_WORDS
    return Maps(
        log_odds=np.zeros((batch, capacity, capacity), np.float32),
        occupied=np.zeros((batch, capacity, words), np.uint64),
        watched=np.zeros((batch, capacity, words), np.uint64),
        corner=np.zeros((batch, 2), np.int64),
        frame=np.zeros((batch, 4), np.int64),
        seen=np.tile(np.array([EMPTY, EMPTY, -EMPTY, -EMPTY], np.int64), (batch, 1)),
        blocked=np.zeros(batch, np.bool_),
    )


def new_scratch(capacity: int, beams: int) -> Scratch:
    """Work space for maps of this capacity."""
    words = capacity // 64 + 2 * PAD_WORDS
    return Scratch(
        free=np.zeros((capacity, words), np.uint64),
        hit=np.zeros((capacity, words), np.uint64),
        points=np.zeros((6 * beams + 2, 2)),
        cells=np.zeros((4 * capacity + 6 * beams + 2, 2), np.int64),
    )


def enlarged(maps: Maps, capacity: int) -> Maps:
    """The same maps with more cells a side; each keeps its corner."""
    new = new_maps(len(maps.frame), capacity)
    side, words = maps.log_odds.shape[1], maps.occupied.shape[2]
    new.log_odds[:, :side, :side] = maps.log_odds
    new.occupied[:, :side, :words] = maps.occupied
    new.watched[:, :side, :words] = maps.watched
    for name in ("corner", "frame", "seen", "blocked"):
        getattr(new, name)[:] = getattr(maps, name)
    return new


def move_frame(maps: Maps, b: int, frame: tuple[int, int, int, int]) -> None:
    """Gives world b another frame, somewhere within the square: what both frames hold is kept.

    It happens when a map reaches the end of its square, or its largest size: some times an episode at most.
    """
    capacity = maps.log_odds.shape[1]
    column, row, column_end, row_end = frame
    left, low = max(column, int(maps.frame[b, 0])), max(row, int(maps.frame[b, 1]))
    right, high = min(column_end, int(maps.frame[b, 2])), min(row_end, int(maps.frame[b, 3]))
    corner = (
        column - (capacity - (column_end - column)) // 2,
        row - (capacity - (row_end - row)) // 2,
    )
    x0, y0 = (int(v) for v in maps.corner[b])
    old = maps.log_odds[b, low - y0 : high - y0, left - x0 : right - x0].copy()
    kept = []
    for plane in (maps.occupied, maps.watched):
        bits = np.unpackbits(plane[b].view(np.uint8), axis=1, bitorder="little")[:, PAD : PAD + capacity]
        kept.append(bits[low - y0 : high - y0, left - x0 : right - x0].copy())
        plane[b] = 0
    maps.log_odds[b] = 0
    maps.corner[b], maps.frame[b] = corner, frame
    if old.size:
        rows, columns = slice(low - corner[1], high - corner[1]), slice(left - corner[0], right - corner[0])
        maps.log_odds[b, rows, columns] = old
        for plane, cells in zip((maps.occupied, maps.watched), kept, strict=True):
            bits = np.zeros((capacity, plane.shape[2] * 64), np.uint8)
            bits[rows, columns.start + PAD : columns.stop + PAD] = cells
            plane[b] = np.packbits(bits, axis=1, bitorder="little").view(np.uint64)
    box = maps.seen[b]
    box[:2], box[2:] = np.maximum(box[:2], (left, low)), np.minimum(box[2:], (right, high))


@inner
def clear_map(maps: Maps, block: int, b: int) -> None:
    """An unknown map round the start."""
    x0, y0 = maps.corner[b, 0], maps.corner[b, 1]
    for r in range(maps.frame[b, 1] - y0, maps.frame[b, 3] - y0):
        maps.log_odds[b, r, maps.frame[b, 0] - x0 : maps.frame[b, 2] - x0] = np.float32(0.0)
        maps.occupied[b, r, :] = _ZERO
        maps.watched[b, r, :] = _ZERO
    maps.frame[b, 0], maps.frame[b, 1], maps.frame[b, 2], maps.frame[b, 3] = -block, -block, block, block
    half = maps.log_odds.shape[1] // 2
    maps.corner[b, 0], maps.corner[b, 1] = -half, -half
    maps.seen[b, 0], maps.seen[b, 1], maps.seen[b, 2], maps.seen[b, 3] = EMPTY, EMPTY, -EMPTY, -EMPTY
    maps.blocked[b] = False


@inner
def _reach(beam_m: float, into_m: float, longest_m: float) -> float:
    """How far a beam proves free; one that is NaN ends at the sensor."""
    return min((beam_m if beam_m > 0.0 else 0.0) + into_m, longest_m)


@inner
def _outline(numbers: MapNumbers, pose: Array, scan: Array, points: Array) -> tuple[int, int]:
    """Writes the outline of what the scan saw free, then the hits; their ends. See `Mapper._free_polygon`, `_hits`."""
    n, full = len(scan), numbers.full_circle
    yaw = np.float64(pose[2])
    c, s = math.cos(yaw), math.sin(yaw)
    x, y = np.float64(pose[0]) + numbers.mount_x_m * c, np.float64(pose[1]) + numbers.mount_x_m * s
    into, longest = numbers.into_surface_m, numbers.range_m
    beams, vertices, shortest, join_m = numbers.beams, numbers.vertices, numbers.min_range_m, numbers.join_m
    last = _reach(np.float64(scan[0]), into, longest)
    first = last
    count = 0
    for i in range(n):
        reach = last
        last = _reach(np.float64(scan[i + 1]), into, longest) if i + 1 < n else first
        for k in range(2):
            if i == n - 1 and k == 1 and not full:
                break
            r = reach if k == 0 else min(reach, last)
            dx, dy = vertices[2 * i + k, 0], vertices[2 * i + k, 1]
            points[count, 0], points[count, 1] = x + r * (dx * c - dy * s), y + r * (dx * s + dy * c)
            count += 1
    if not full:
        points[count, 0], points[count, 1] = x, y
        count += 1
    end = count
    begin_x, begin_y, begin = 0.0, 0.0, -1
    old_x, old_y, old = 0.0, 0.0, -2
    for i in range(n + 1):
        k = i
        if i == n:  # from the last hit to the first one, round the circle
            if begin < 0:
                break
            hit_x, hit_y = begin_x, begin_y
            k = begin + n if full else -2
        else:
            reach = np.float64(scan[i])
            if not (shortest <= reach < longest - 1e-3):
                continue
            dx, dy = beams[i, 0], beams[i, 1]
            hit_x = x + (reach + into) * (dx * c - dy * s)
            hit_y = y + (reach + into) * (dx * s + dy * c)
        if k - old == 1 and (i < n or begin != old):
            step_x, step_y = hit_x - old_x, hit_y - old_y
            if math.sqrt(step_x * step_x + step_y * step_y) < join_m:
                for share in (0.25, 0.5, 0.75):
                    points[end, 0], points[end, 1] = old_x + share * step_x, old_y + share * step_y
                    end += 1
        if i < n:
            points[end, 0], points[end, 1] = hit_x, hit_y
            end += 1
            old_x, old_y, old = hit_x, hit_y, i
            if begin < 0:
                begin_x, begin_y, begin = hit_x, hit_y, i
    return count, end


@inner
def _frame_for(numbers: MapNumbers, maps: Maps, b: int, pose: Array, goal: Array, box: Array, frame: Array) -> bool:
    """Whether the map must grow to hold robot, goal and scan; `frame` becomes what it should be (`Mapper._grown`)."""
    cell, block, least, margin = numbers.resolution_m, numbers.block, numbers.least, numbers.margin
    ends = np.empty(4, np.int64)
    for axis in range(2):
        at, to = np.float64(pose[axis]), np.float64(goal[axis])
        ends[axis] = math.floor(min(at - 1.0, to - 1.0, box[axis]) / cell)
        ends[axis + 2] = math.floor(max(at + 1.0, to + 1.0, box[axis + 2]) / cell)
    old = maps.frame[b]
    low_held = ends[0] - least >= old[0] and ends[1] - least >= old[1]
    if low_held and ends[2] + least + 1 <= old[2] and ends[3] + least + 1 <= old[3]:
        return False
    changed = False
    for axis in range(2):
        at, to = np.float64(pose[axis]), np.float64(goal[axis])
        low, high = min(at - 1.0, to - 1.0, box[axis]), max(at + 1.0, to + 1.0, box[axis + 2])
        low_cell, high_cell = math.floor(low / cell), math.floor(high / cell)
        first = min(old[axis], math.floor((low_cell - margin) / block) * block)
        end = max(old[axis + 2], math.ceil((high_cell + margin) / block) * block)
        if end - first > numbers.limit:
            first = (math.floor(at / cell) - numbers.limit // 2) // block * block
            end = first + numbers.limit
        frame[axis], frame[axis + 2] = first, end
        changed = changed or first != old[axis] or end != old[axis + 2]
    return changed


@inner
def _mark(
    numbers: MapNumbers, maps: Maps, b: int, points: Array, corners: int, ends: int, window: Array, scratch: Scratch
) -> None:
    """Sets the bits of the cells that the scan saw free and of those that it hit, inside the window (of the square)."""
    scale = 1.0 / numbers.resolution_m
    frame_column, frame_row = maps.frame[b, 0], maps.frame[b, 1]
    x0, y0 = frame_column * numbers.resolution_m, frame_row * numbers.resolution_m
    shift_x, shift_y = frame_column - maps.corner[b, 0], frame_row - maps.corner[b, 1]
    left, low, right, high = window[0], window[1], window[2], window[3]
    free, hit, cells = scratch.free, scratch.hit, scratch.cells  # taken out once: each look into a tuple costs
    first, last = (left + PAD) >> 6, (right - 1 + PAD) >> 6
    for r in range(low, high):
        free[r, first : last + 1] = _ZERO
        hit[r, first : last + 1] = _ZERO
    for i in range(corners):  # OpenCV's fixed point: a sixteenth of a pixel, then whole pixels
        column = (int64(np.rint(((points[i, 0] - x0) * scale - 0.5) * 16.0)) + 8) >> 4
        row = (int64(np.rint(((points[i, 1] - y0) * scale - 0.5) * 16.0)) + 8) >> 4
        cells[i, 0], cells[i, 1] = column + shift_x, row + shift_y
    for i in range(corners):
        j = i - 1 if i else corners - 1
        ax, ay, bx, by = cells[j, 0], cells[j, 1], cells[i, 0], cells[i, 1]
        if ay == by:
            continue
        bottom, top = min(ay, by), max(ay, by)
        if min(ax, bx) < left or max(ax, bx) >= right or bottom < low or top >= high:
            # as in OpenCV, its slope is that of the part inside
            _, px, py, qx, qy = clipped(ax - left, ay - low, bx - left, by - low, right - left, high - low)
            ax, bx = px + left, qx + left
            if py != qy:
                ay, by = py + low, qy + low
        step = quotient((bx - ax) << 16, by - ay)
        x = (ax << 16) + (bottom - ay) * step if cells[j, 1] < cells[i, 1] else (bx << 16) + (bottom - by) * step
        if bottom < low:
            x, bottom = x + step * (low - bottom), low
        for r in range(bottom, min(top, high)):
            column = max((x + 65535) >> 16, left)
            if column < right:
                free[r, (column + PAD) >> 6] ^= bit(column)
            x += step
    for r in range(low, high):
        odd = _ZERO
        for w in range(first, last + 1):
            word = filled_to_right(free[r, w]) ^ odd
            free[r, w] = word
            odd = _ZERO - (word >> np.uint64(63))
        if (right + PAD) & 63:  # where the map ends before the scan does
            free[r, last] &= ~bits_from(right + PAD)
    for i in range(corners):  # the outline itself proves nothing
        j = i - 1 if i else corners - 1
        x, y = cells[i, 0] + PAD, cells[i, 1]
        erase_line(free, cells[j, 0] + PAD, cells[j, 1], x, y, left + PAD, low, right + PAD, high)
    for i in range(corners, ends):
        column = int64(math.floor((points[i, 0] - x0) * scale)) + shift_x
        row = int64(math.floor((points[i, 1] - y0) * scale)) + shift_y
        if left <= column < right and low <= row < high:
            hit[row, (column + PAD) >> 6] |= bit(column)


@inner
def _add_evidence(numbers: MapNumbers, maps: Maps, b: int, window: Array, scratch: Scratch) -> None:
    """Adds the marked cells' evidence to the map and keeps the bits of the occupied ones."""
    lower, upper, less, more = numbers.low, numbers.high, numbers.free, numbers.hit
    first, last = (window[0] + PAD) >> 6, (window[2] - 1 + PAD) >> 6
    log_odds, occupied, watched = maps.log_odds[b], maps.occupied[b], maps.watched[b]
    free, hit = scratch.free, scratch.hit
    blocked = False
    for r in range(window[1], window[3]):
        row = log_odds[r]
        for w in range(first, last + 1):
            hits = hit[r, w]
            clear = free[r, w] & ~hits
            base = (w << 6) - PAD
            left = clear
            while left != _ZERO:
                begin = trailing_zeros(left)
                gap = ~(left >> np.uint64(begin))
                end = min(begin + trailing_zeros(gap), 64)
                for c in range(base + begin, base + end):
                    row[c] = max(row[c] + less, lower)
                left = left & bits_from(end) if end < 64 else _ZERO
            left = clear & occupied[r, w]
            while left != _ZERO:
                k = trailing_zeros(left)
                left &= left - np.uint64(1)
                if not row[base + k] > _ABOVE:
                    occupied[r, w] &= ~bit(k)
            while hits != _ZERO:
                k = trailing_zeros(hits)
                hits &= hits - np.uint64(1)
                value = min(row[base + k] + more, upper)
                row[base + k] = value
                if value > _ABOVE:
                    occupied[r, w] |= bit(k)
                    blocked = blocked or (watched[r, w] & bit(k)) != _ZERO
    maps.blocked[b] = blocked


@inner
def update_map(
    numbers: MapNumbers, maps: Maps, b: int, pose: Array, goal: Array, scan: Array, scratch: Scratch, wanted: Array
) -> bool:
    """World b's map after one more scan, in place; False, and nothing changed, if `move_frame` must come first.

    Args:
        pose: (3,) of the base in odom.
        goal: (2,) in odom.
        wanted: (4,) becomes the frame to move to.
    """
    points = scratch.points
    corners, ends = _outline(numbers, pose, scan, points)
    box = np.empty(4)
    box[0] = box[2] = points[0, 0]
    box[1] = box[3] = points[0, 1]
    for i in range(1, ends):
        box[0], box[1] = min(box[0], points[i, 0]), min(box[1], points[i, 1])
        box[2], box[3] = max(box[2], points[i, 0]), max(box[3], points[i, 1])
    if _frame_for(numbers, maps, b, pose, goal, box, wanted):
        side = maps.log_odds.shape[1]
        old, corner = maps.frame[b], maps.corner[b]
        if maps.seen[b, 2] < maps.seen[b, 0]:  # nothing to move yet
            for axis in range(2):
                corner[axis] = wanted[axis] - (side - (wanted[axis + 2] - wanted[axis])) // 2
        for axis in range(2):
            grows = wanted[axis] <= old[axis] and wanted[axis + 2] >= old[axis + 2]
            if not grows or wanted[axis] <= corner[axis] or wanted[axis + 2] >= corner[axis] + side:
                return False
        for k in range(4):
            old[k] = wanted[k]
    scale = 1.0 / numbers.resolution_m
    window = np.empty(4, np.int64)
    for axis in range(2):
        origin = maps.frame[b, axis] * numbers.resolution_m
        size = maps.frame[b, axis + 2] - maps.frame[b, axis]
        shift = maps.frame[b, axis] - maps.corner[b, axis]
        window[axis] = max(math.floor((box[axis] - origin) * scale) - 1, 0) + shift
        window[axis + 2] = min(math.floor((box[axis + 2] - origin) * scale) + 2, size) + shift
    maps.blocked[b] = False
    if window[0] >= window[2] or window[1] >= window[3]:
        return True
    _mark(numbers, maps, b, points, corners, ends, window, scratch)
    _add_evidence(numbers, maps, b, window, scratch)
    for axis in range(2):
        maps.seen[b, axis] = min(maps.seen[b, axis], window[axis] + maps.corner[b, axis])
        maps.seen[b, axis + 2] = max(maps.seen[b, axis + 2], window[axis + 2] + maps.corner[b, axis])
    return True
