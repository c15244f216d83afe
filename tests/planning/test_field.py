"""The distance field that exported planners read, against exact distances to the same points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from robonav.config import load_robot
from robonav.mapping.tracks import NO_TRACKS
from robonav.planning.field import (
    CELLS,
    LONG_S,
    NOTHING_M,
    LocalField,
    distance_grid,
    footprint_spots,
    local_field,
    movers_distance_m,
    no_movers,
    spots_distance_m,
)
from robonav.planning.rollouts import footprint_distance_m
from robonav.planning.surroundings import BODY_M, Surroundings

SPEC = load_robot("a1")
HALF_M = 3.0


def some_points(count: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.uniform(-2.9, 2.9, count) + 1j * rng.uniform(-2.9, 2.9, count)).astype(np.complex64)


def test_each_cell_holds_the_distance_to_the_nearest_point_itself() -> None:
    points = some_points()
    grid = distance_grid(points, HALF_M)
    at = np.linspace(-HALF_M, HALF_M, CELLS)
    exact = np.abs(at[None, :, None] + 1j * at[:, None, None] - points).min(-1)
    assert grid.shape == (CELLS, CELLS)
    error = np.abs(grid - exact)  # where two points share a cell, or the transform's mask takes the second nearest
    assert error.max() < 0.07
    assert np.percentile(error, 98) < 0.02
    assert np.median(error) < 1e-5
    assert (distance_grid(np.zeros(0, np.complex64), HALF_M) == NOTHING_M).all()


def test_points_outside_the_grid_count_near_its_edge() -> None:
    grid = distance_grid(np.array([HALF_M + 0.1 + 0j], np.complex64), HALF_M)
    assert grid[CELLS // 2, -1] == pytest.approx(0.1, abs=0.03)


def test_the_swept_field_is_close_to_exact_distances() -> None:
    points, rng = some_points(25), np.random.default_rng(1)
    poses = (rng.uniform(-2, 2, (40, 6)) + 1j * rng.uniform(-2, 2, (40, 6))).astype(np.complex64)
    yaw = rng.uniform(-3, 3, (40, 6)).astype(np.float32)
    field = LocalField(distance_grid(points, HALF_M), HALF_M, no_movers(), points)
    exact = footprint_distance_m(SPEC, poses, yaw, points)
    found = spots_distance_m(field, poses, yaw, footprint_spots(SPEC))
    outside = exact > 0.02
    assert outside.sum() > 50
    # spots lie inside the rectangle: never nearer than it but for the grid, and by no more than its rounding off
    assert (found - exact)[outside].min() > -0.05
    assert (found - exact)[outside].max() < 0.07
    assert (found[exact < -0.06] < 0).all()


def test_discs_that_move_are_those_that_points_on_their_rim_are() -> None:
    rng = np.random.default_rng(2)
    poses = (rng.uniform(-2, 2, (30, 4)) + 1j * rng.uniform(-2, 2, (30, 4))).astype(np.complex64)
    yaw = rng.uniform(-3, 3, (30, 4)).astype(np.float32)
    centre = np.array([[0.9 + 0.4j], [0.8 + 0.3j], [0.7 + 0.2j], [0.6 + 0.1j]], np.complex64)  # (T, 1)
    rim = (centre + 0.3 * np.exp(2j * np.pi * np.arange(720) / 720)).astype(np.complex64)
    exact = footprint_distance_m(SPEC, poses, yaw, rim)
    found = movers_distance_m(SPEC, poses, yaw, centre, np.array([0.3], np.float32))
    apart = exact > 0
    assert apart.sum() > 30
    assert np.abs(found - exact)[apart].max() < 1e-3
    assert (found[~apart] < 0).all()


def test_movers_leave_the_grid_and_become_discs() -> None:
    walker = np.array([1.0 + 1.0j, 1.1 + 1.0j])
    wall = np.array([2.0 + 0j, 2.0 + 0.1j])
    points, velocity = np.concatenate([walker, wall]), np.array([0.5j, 0.5j, 0, 0])
    two = {"position_m": np.array([[1.05, 1.2], [0.0, 5.0]]), "velocity_mps": np.array([[0.0, 0.5], [0.0, 0.0]])}
    tracks = NO_TRACKS._replace(**two, radius_m=np.array([0.25, 0.4]), seen=np.array([9, 9]))
    pose = np.array([1.0, 0.0, np.pi / 2])
    found = local_field(Surroundings(points, velocity, tracks), np.array([True, False]), pose, HALF_M)
    assert np.allclose(found.movers[0], [1.2, -0.05, 0.5, 0.0, 0.25, LONG_S], atol=1e-6)
    assert np.array_equal(found.movers[1:], no_movers()[1:])
    assert np.allclose(np.sort_complex(found.standing), [0 - 1j, 0.1 - 1j], atol=1e-6)


def test_spots_fill_the_footprint_whichever_way_it_is_longer() -> None:
    for spec in (SPEC, replace(SPEC, length_m=0.3, width_m=0.6)):
        x, y, radius = footprint_spots(spec).T
        assert np.abs(x).max() + radius[np.abs(x).argmax()] <= spec.length_m / 2 + 1e-6
        assert np.abs(y).max() + radius[np.abs(y).argmax()] <= spec.width_m / 2 + 1e-6
        corner = complex(spec.length_m / 2, spec.width_m / 2)
        assert (np.abs(corner - (x + 1j * y)) - radius).min() < 0.03


def test_a_disc_knows_how_long_nothing_stands_in_its_way() -> None:
    walker, wall = np.array([1.0 + 0j]), 3.0 + 0.1j * np.arange(-5, 6)
    points, velocity = np.concatenate([walker, wall]), np.concatenate([[0.5 + 0j], np.zeros(11)])
    one = {"position_m": np.array([[1.0, 0.0]]), "velocity_mps": np.array([[0.5, 0.0]])}
    tracks = NO_TRACKS._replace(**one, radius_m=np.array([0.25]), seen=np.array([9]))
    found = local_field(Surroundings(points, velocity, tracks), np.array([True]), np.array([0.5, 0.0, 1.0]), HALF_M)
    assert found.movers[0, 5] == pytest.approx((2.0 - BODY_M) / 0.5, abs=1e-4)
