from __future__ import annotations

import numpy as np
import pytest

from robonav.geometry import transform_points
from robonav.mapping import OccupancyGrid, egocentric_crop
from robonav.types import LocalMapSpec

LOCAL = LocalMapSpec(cells=48, resolution_m=0.1)
YAWS = (0.0, 0.4, np.pi / 2, 2.5, -np.pi / 2, -3.0, np.pi / 4)


def grid_with(points_odom, value: float = 2.0, base: float = 0.0) -> OccupancyGrid:
    log_odds = np.full((160, 140), base, np.float32)
    grid = OccupancyGrid(np.zeros((160, 140), np.float32), np.array([-6.0, -7.0]), 0.1)
    for row, column in grid.cell_of(np.atleast_2d(points_odom)):
        log_odds[row, column] = value
    return OccupancyGrid(log_odds, np.array([-6.0, -7.0]), 0.1)


@pytest.mark.parametrize("yaw", YAWS)
@pytest.mark.parametrize(
    ("point_base", "rows", "columns"),
    [
        ((1.5, 0.0), slice(8, 10), slice(23, 25)),
        ((-1.5, 0.0), slice(38, 40), slice(23, 25)),
        ((0.0, 1.5), slice(23, 25), slice(8, 10)),
        ((0.0, -1.5), slice(23, 25), slice(38, 40)),
        ((1.0, 2.0), slice(13, 15), slice(3, 5)),
    ],
)
def test_ahead_is_up_and_left_is_left(yaw: float, point_base, rows: slice, columns: slice) -> None:
    pose = (0.73, -0.41, yaw)
    crop = egocentric_crop(grid_with(transform_points(pose, point_base)), pose, LOCAL)
    found = np.argwhere(crop[0])
    assert len(found)
    # half a cell of the grid and half of the crop
    assert np.abs(found - (23.5 - np.array(point_base) / 0.1)).max() <= 1.5
    around = crop[0][rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1]
    assert np.count_nonzero(around) == len(found)


def test_no_single_cell_is_lost_in_any_turn() -> None:
    random = np.random.default_rng(3)
    points = random.uniform(-1.5, 1.5, (12, 2))
    points = points[[all(np.hypot(*(p - q)) > 0.3 for q in points[:i]) for i, p in enumerate(points)]]
    grid = grid_with(points, base=-1.0)
    centres = grid.centre_of(grid.cell_of(points))
    for yaw in np.linspace(-np.pi, np.pi, 60):
        crop = egocentric_crop(grid, (0.03, 0.05, yaw), LOCAL)
        for centre in centres:
            dx, dy = centre - (0.03, 0.05)
            forward, left = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
            exact = 23.5 - np.array([forward, left]) / 0.1
            assert np.abs(np.argwhere(crop[0]) - exact).max(axis=1).min() < 0.5 + 1e-3


def test_unknown_is_zero_in_all_and_free_excludes_occupied() -> None:
    crop = egocentric_crop(grid_with([(0.5, 0.5)]), (0, 0, 0.3), LOCAL)
    assert not crop[1].any() and not crop[2].any()
    crop = egocentric_crop(grid_with([(0.5, 0.5)], base=-1.0), (0, 0, 0.3), LOCAL)
    assert crop.dtype == np.uint8 and crop.shape == (3, 48, 48)
    assert set(np.unique(crop)) == {0, 255}
    assert not (crop[0] & crop[1]).any()
    assert ((crop[0] | crop[1]) == 255).all()


def test_outside_the_grid_is_unknown() -> None:
    grid = grid_with([(0.0, 0.0)], base=-1.0)  # x from -6 to 8
    crop = egocentric_crop(grid, (8.0, 0.0, 0.0), LOCAL)
    assert not crop[:, :24].any() and (crop[1, 25:] == 255).all()
    assert not egocentric_crop(grid, (100.0, 0.0, 1.0), LOCAL).any()


@pytest.mark.parametrize("yaw", YAWS)
def test_the_route_is_drawn_where_it_lies(yaw: float) -> None:
    pose = (0.3, 0.2, yaw)
    route = transform_points(pose, [(0.0, 0.0), (1.5, 0.0), (1.5, -1.0)]).astype(np.float32)
    channel = egocentric_crop(grid_with([(5.0, 5.0)]), pose, LOCAL, route)[2]
    assert channel[9:23, 23:25].any(axis=1).all()  # straight ahead
    assert channel[8:10, 25:33].any(axis=0).all()  # then to the right
    assert not channel[25:].any() and not channel[:7].any() and not channel[:, :22].any()


def test_a_coarser_crop_keeps_directions() -> None:
    crop = egocentric_crop(grid_with([(3.05, 0.05)], base=-1.0), (0, 0, 0), LocalMapSpec(cells=24, resolution_m=0.4))
    found = np.argwhere(crop[0])
    assert len(found) and (np.abs(found - (11.5 - np.array([3.05, 0.05]) / 0.4)) <= 1).all()
