from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from robonav.errors import ConfigError, ShapeError
from robonav.mapping import Mapper, MapperConfig, OccupancyGrid
from robonav.mapping.mapper import way_round_cells
from robonav.types import LidarSpec, RobotSpec
from tests.mapping.raycast import NO_CIRCLES, cast, observe, room

GOAL = (3.0, 0.5)


def mapped(spec: RobotSpec, poses, segments, circles=NO_CIRCLES, goal=GOAL) -> OccupancyGrid:
    mapper = Mapper(spec)
    grid = mapper.reset()
    for pose in poses:
        grid = mapper.update(grid, observe(pose, goal, cast(pose, spec.lidar, segments, circles)))
    return grid


def state_at(grid: OccupancyGrid, x: float, y: float) -> str:
    row, column = grid.cell_of((x, y))
    return "occupied" if grid.occupied[row, column] else "free" if grid.free[row, column] else "unknown"


@pytest.fixture(scope="module")
def room_grid(a1: RobotSpec) -> OccupancyGrid:
    """A room of 6 x 4 m with a box in it, seen while driving along the lower wall."""
    walls = np.concatenate([room(-1.03, -1.03, 5.03, 3.03), room(2.02, 1.02, 2.98, 1.98)])
    return mapped(a1, [(x, 0.0, 0.3 * x) for x in np.linspace(0.0, 4.0, 30)], walls)


def test_a_room_is_mapped_as_it_is(room_grid: OccupancyGrid) -> None:
    rows, columns = np.indices(room_grid.log_odds.shape)
    x, y = np.moveaxis(room_grid.centre_of(np.stack([rows, columns], -1)), -1, 0)
    edge = 0.08  # a cell that a wall goes through may be either
    outside = (x < -1.03 - edge) | (x > 5.03 + edge) | (y < -1.03 - edge) | (y > 3.03 + edge)
    box = (np.abs(x - 2.5) < 0.48 - edge) & (np.abs(y - 1.5) < 0.48 - edge)
    near_box = (np.abs(x - 2.5) < 0.48 + 0.15) & (np.abs(y - 1.5) < 0.48 + 0.15)
    shadow = (y > 1.0) & (np.abs(x - 2.5) < 1.2)
    inside = (np.abs(x - 2) < 3.03 - 0.15) & (np.abs(y - 1) < 2.03 - 0.15) & ~near_box & ~shadow
    assert room_grid.free[inside].all()
    assert not room_grid.free[outside].any() and not room_grid.occupied[outside].any()
    assert not room_grid.free[box].any()
    for along in np.arange(-0.9, 4.9, 0.1):
        assert state_at(room_grid, along, -1.04) == "occupied", along
    for along in np.arange(2.1, 2.9, 0.1):
        assert state_at(room_grid, along, 1.03) == "occupied", along


def test_behind_a_wall_nothing_is_known(room_grid: OccupancyGrid) -> None:
    assert state_at(room_grid, 2.5, 1.5) == "unknown"
    assert state_at(room_grid, 2.5, 2.2) == "unknown"  # in the box's shadow from everywhere on the way
    assert state_at(room_grid, -1.5, 0.0) == "unknown"


def test_the_grid_that_goes_in_stays_as_it_was(a1: RobotSpec) -> None:
    mapper, walls = Mapper(a1), room(-2, -2, 2, 2)
    first = mapper.update(mapper.reset(), observe((0, 0, 0), GOAL, cast((0, 0, 0), a1.lidar, walls)))
    before = first.log_odds.copy()
    second = mapper.update(first, observe((0.5, 0, 0), GOAL, cast((0.5, 0, 0), a1.lidar, walls)))
    assert np.array_equal(first.log_odds, before)
    assert not np.array_equal(second.log_odds, before)
    with pytest.raises(ValueError, match="read-only"):
        first.log_odds[0, 0] = 1.0


def test_growing_keeps_what_is_known_in_its_place(a1: RobotSpec) -> None:
    mapper, walls = Mapper(a1), room(-1.03, -1.03, 1.03, 1.03)
    small = mapper.update(mapper.reset(), observe((0, 0, 0), (0.5, 0), cast((0, 0, 0), a1.lidar, walls)))
    large = mapper.update(small, observe((0, 0, 0), (-14.0, 9.0), None))
    assert large.log_odds.size > small.log_odds.size
    cells = np.argwhere(small.log_odds != 0)
    moved = large.cell_of(small.centre_of(cells))
    assert np.array_equal(large.log_odds[tuple(moved.T)], small.log_odds[tuple(cells.T)])
    assert np.count_nonzero(large.log_odds) == len(cells)
    for point in ((-14.0, 9.0), (0.0, 0.0)):
        row, column = large.cell_of(point)
        assert 0 <= row < large.log_odds.shape[0] and 0 <= column < large.log_odds.shape[1]


@pytest.mark.parametrize("size", [(0.62, 0.32), (1.4, 0.6)], ids=["a1", "large"])
def test_there_is_ground_for_a_way_round_whatever_was_seen(a1: RobotSpec, size: tuple[float, float]) -> None:
    """A room that turns out larger and larger: a frame that ends right behind its walls would shut the way round."""
    spec = dataclasses.replace(a1, length_m=size[0], width_m=size[1])
    round_it, mapper = way_round_cells(spec, 0.1), Mapper(spec)
    grid, frames = mapper.reset(), set()
    for half in 2.03 + 0.1 * np.arange(20):
        scan = cast((0, 0, 0), spec.lidar, room(-half, -half, half, half))
        grid = mapper.update(grid, observe((0, 0, 0), (0.5, 0.0), scan))
        column, row, column_end, row_end = grid.known_box()
        assert grid.covers(column - round_it, row - round_it, column_end + round_it, row_end + round_it), half
        frames.add((grid.origin_cell, grid.log_odds.shape))
    assert len(frames) < 5  # it grows by blocks


def test_a_far_goal_does_not_ask_for_endless_memory(a1: RobotSpec) -> None:
    mapper = Mapper(a1, MapperConfig(max_side_m=30.0))
    scan = cast((0, 0, 0), a1.lidar, room(-3, -3, 3, 3))
    grid = mapper.update(mapper.reset(), observe((0, 0, 0), (1e6, -1e6), scan))
    assert max(grid.log_odds.shape) <= 300
    assert state_at(grid, 0.0, 0.0) == "free" and state_at(grid, 3.04, 0.5) == "occupied"
    far = mapper.update(grid, observe((500.0, 0, 0), (1e6, -1e6), scan))  # forgets, and maps on
    assert max(far.log_odds.shape) <= 300 and state_at(far, 503.04, 0.5) == "occupied"


def test_thin_posts_survive_free_space_round_them(a1: RobotSpec) -> None:
    posts = np.array([[2.0, 0.33, 0.075], [3.1, -0.47, 0.075], [1.2, -1.05, 0.075]])
    grid = mapped(a1, [(x, 0.0, 0.0) for x in np.linspace(0.0, 1.5, 16)], room(-2, -2, 6, 2), posts)
    for x, y, _ in posts:
        row, column = grid.cell_of((x, y))
        assert grid.occupied[row - 1 : row + 2, column - 1 : column + 2].any(), (x, y)


def test_what_went_away_is_cleared_and_evidence_is_bounded(a1: RobotSpec) -> None:
    mapper, walls = Mapper(a1), room(-3.03, -3.03, 3.03, 3.03)
    post = np.array([[1.54, 0.04, 0.2]])
    grid = mapper.reset()
    for _ in range(20):
        grid = mapper.update(grid, observe((0, 0, 0), GOAL, cast((0, 0, 0), a1.lidar, walls, post)))
    assert state_at(grid, 1.36, 0.04) == "occupied"
    assert grid.log_odds.max() == pytest.approx(mapper.config.log_odds_max)
    assert grid.log_odds.min() == pytest.approx(mapper.config.log_odds_min)
    for _ in range(10):
        grid = mapper.update(grid, observe((0, 0, 0), GOAL, cast((0, 0, 0), a1.lidar, walls)))
    assert state_at(grid, 1.36, 0.04) == "free"


@pytest.mark.parametrize("empty", ["range", "inf"])
def test_beams_that_hit_nothing_clear_up_to_the_range_and_mark_nothing(a1: RobotSpec, empty: str) -> None:
    value = a1.lidar.range_m if empty == "range" else np.inf
    grid = Mapper(a1).update(Mapper(a1).reset(), observe((0, 0, 0), GOAL, np.full(a1.lidar.beams, value, np.float32)))
    assert not grid.occupied.any()
    area_m2 = grid.free.sum() * grid.resolution_m**2
    assert area_m2 == pytest.approx(math.pi * a1.lidar.range_m**2, rel=0.03)


def test_without_a_scan_nothing_becomes_known(a1: RobotSpec) -> None:
    mapper = Mapper(a1)
    grid = mapper.update(mapper.reset(), observe((0, 0, 0), GOAL, None))
    assert not grid.log_odds.any()


def test_beams_without_a_value_say_nothing(a1: RobotSpec) -> None:
    walls = room(-2, -2, 2, 2)
    scan = cast((0, 0, 0), a1.lidar, walls)
    ahead = np.abs(a1.lidar.angles_rad) < 0.5
    for broken in (np.nan, 0.0):
        holed = scan.copy()
        holed[ahead] = broken
        grid = Mapper(a1).update(Mapper(a1).reset(), observe((0, 0, 0), GOAL, holed))
        assert state_at(grid, 1.0, 0.0) == "unknown"
        assert state_at(grid, -1.0, 0.0) == "free"
        assert np.isfinite(grid.log_odds).all()


def test_a_narrow_lidar_sees_only_its_sector(a1: RobotSpec) -> None:
    spec = dataclasses.replace(a1, lidar=LidarSpec(beams=61, angle_min_rad=-0.5, fov_rad=1.0, mount_x_m=0.2))
    pose = (0.0, 0.0, np.pi / 2)
    grid = mapped(spec, [pose], room(-3.03, -3.03, 3.03, 3.03))
    assert state_at(grid, 0.0, 2.0) == "free" and state_at(grid, 0.05, 3.04) == "occupied"
    assert state_at(grid, 0.0, -0.3) == "unknown" and state_at(grid, 1.5, 1.0) == "unknown"


def test_a_scan_of_another_size_and_a_pose_of_nan_are_refused(a1: RobotSpec) -> None:
    mapper = Mapper(a1)
    with pytest.raises(ShapeError, match=r"scan_m.*\(128,\).*\(90,\)"):
        mapper.update(mapper.reset(), observe((0, 0, 0), GOAL, np.ones(90, np.float32)))
    with pytest.raises(ShapeError, match="pose_odom_base"):
        mapper.update(mapper.reset(), observe((np.nan, 0, 0), GOAL, None))


@pytest.mark.parametrize(
    "values", [{"resolution_m": 0.0}, {"free_log_odds": 0.4}, {"log_odds_min": -0.1}, {"max_side_m": 1.0}]
)
def test_settings_that_cannot_map_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MapperConfig(**values)
