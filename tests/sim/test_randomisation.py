"""Domain randomisation: each knob is in the preset, is drawn within its range, is recorded, and changes the episode."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import sim
from robonav.errors import ConfigError
from robonav.types import Scene
from sim.actuation import Actuation
from sim.env import NavigateEnv
from sim.randomisation import (
    CAMERA_KNOBS,
    LEG_KNOBS,
    ActuationDraw,
    RandomisationConfig,
    draw,
    load_randomisation,
)
from sim.sensor_config import SensorConfig

KNOBS = [field.name for field in dataclasses.fields(RandomisationConfig)]
PERFECT = SensorConfig()

# The ranges of the literature that the preset is made of (see its head); None where they give none.
LITERATURE: dict[str, Any] = {
    "friction": (0.5, 1.25),
    "push_mps": (0.0, 1.0),
    "added_mass_kg": (-1.0, 3.0),
    "motor_strength": (0.9, 1.1),
    "centre_of_mass_m": 0.05,
    "velocity_noise_mps": (0.0, 0.1),
    "yaw_rate_noise_radps": (0.0, 0.2),
    "depth_delay_s": (0.0, 0.15),
    "command_delay_s": (0.0, 0.1),
    "tracking_gain": (0.8, 1.1),
    "lag_s": (0.1, 0.3),
    "dropped_frames": (0.0, 0.2),
}

# Something far from nothing for each knob, so that its effect shows within a second.
STRONG: dict[str, Any] = {
    "command_delay_s": (0.1, 0.1),
    "tracking_gain": (0.6, 0.6),
    "lag_s": (0.5, 0.5),
    "slip": (0.5, 0.5),
    "odometry_scale": (0.2, 0.2),
    "odometry_yaw_drift_radps": (0.3, 0.3),
    "odometry_noise_per_m": (0.3, 0.3),
    "velocity_noise_mps": (0.2, 0.2),
    "yaw_rate_noise_radps": (0.2, 0.2),
    "dropped_frames": (0.7, 0.7),
    "lidar_delay_s": (0.3, 0.3),
    "lidar_noise_m": (0.1, 0.1),
    "lidar_dropout": (0.5, 0.5),
    "depth_delay_s": (0.3, 0.3),
    "depth_noise_per_m": (0.05, 0.05),
    "depth_holes": (0.3, 0.3),
    "depth_edges": (1.0, 1.0),
    "camera_tilt_rad": 0.2,
    "missing_lidar": 1.0,
    "missing_depth": 1.0,
    "missing_imu": 1.0,
    "friction": (0.15, 0.15),
    "added_mass_kg": (3.0, 3.0),
    "centre_of_mass_m": 0.05,
    "motor_strength": (0.5, 0.5),
    "push_mps": (0.5, 0.5),
    "push_period_s": (0.2, 0.2),
}
COMMAND = np.array([0.8, 0.2, 0.4], np.float32)


def hall() -> Scene:
    walls = np.array([[-1, -2, 9, -2, 0.1], [-1, 2, 9, 2, 0.1], [-1, -2, -1, 2, 0.1], [9, -2, 9, 2, 0.1]], np.float32)
    posts = np.array([[2.0, 1.2, 0.2], [3.0, -1.0, 0.2]], np.float32)
    return Scene("hall", (-1.1, -2.1, 9.1, 2.1), (0.0, 0.0, 0.0), (7.0, 0.0), walls=walls, cylinders=posts)


@pytest.fixture(scope="module")
def envs() -> Any:
    made = {
        "kinematic": sim.make_env(depth=True, policy_input=False),
        "legged": sim.make_env(policy_input=False, fidelity="legged"),
        "analytic": sim.make_env(policy_input=False, fidelity="analytic"),
    }
    yield made
    for env in made.values():
        env.close()


def played(env: NavigateEnv, config: RandomisationConfig, ticks: int = 10, seed: int = 3) -> tuple[Any, list[Any]]:
    """What was recorded, and all that the robot saw and did."""
    _, info = env.reset(seed=seed, options={"scene": hall(), "randomisation": config})
    log = []
    for _ in range(ticks):
        observation, *_, step_info = env.step(COMMAND)
        log.append((observation, env._world.pose_world))
        if "outcome" in step_info:
            break
    return info["randomisation"], log


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x[1] == y[1] and all(np.array_equal(x[0][name], y[0][name]) for name in x[0]) for x, y in zip(a, b, strict=True)
    )


def test_every_knob_is_tried_here_and_is_in_the_preset() -> None:
    assert set(STRONG) == set(KNOBS)
    preset = load_randomisation("sim2real")
    assert [name for name in KNOBS if getattr(preset, name) is None] == []
    assert load_randomisation("off").is_off
    assert not preset.is_off
    assert not RandomisationConfig(lag_s=(0.0, 0.0)).is_off


@pytest.mark.parametrize("name", LITERATURE)
def test_the_preset_has_the_ranges_of_the_literature(name: str) -> None:
    assert getattr(load_randomisation("sim2real"), name) == LITERATURE[name]


@pytest.mark.parametrize("name", KNOBS)
def test_each_knob_is_recorded_and_has_an_effect(envs: Any, name: str) -> None:
    env = envs["legged" if name in LEG_KNOBS else "kinematic"]
    knobs = {name: STRONG[name]}
    together = {"push_mps": "push_period_s", "push_period_s": "push_mps"}.get(name)
    others = {} if together is None else {together: STRONG[together]}  # pushes take both
    if name == "missing_imu":  # only a robot on legs leans
        env = envs["legged"]
    record, log = played(env, RandomisationConfig(**knobs, **others))
    without, plain = played(env, RandomisationConfig(**others))
    assert set(record) - set(without) == {name}
    value = STRONG[name]
    for drawn in np.ravel(record[name]):
        low, high = value if isinstance(value, tuple) else (-value, value)
        assert low <= drawn <= high
    assert not same(log, plain)


@pytest.mark.parametrize("name", KNOBS)
def test_each_knob_is_drawn_uniformly_and_alone(name: str) -> None:
    config = load_randomisation("sim2real")
    only = RandomisationConfig(**{name: getattr(config, name)})
    records = [draw(config, PERFECT, seed).record[name] for seed in range(400)]
    assert records == [draw(only, PERFECT, seed).record[name] for seed in range(400)]  # whatever else is drawn
    values = np.array(records, np.float64).reshape(400, -1)
    knob = getattr(config, name)
    if name.startswith("missing_"):
        assert values.mean() == pytest.approx(knob, abs=0.04)
        return
    low, high = knob if isinstance(knob, tuple) else (-knob, knob)
    assert low <= values.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def test_a_draw_follows_the_seed() -> None:
    config = load_randomisation("sim2real")
    assert draw(config, PERFECT, 5) == draw(config, PERFECT, 5)
    assert draw(config, PERFECT, 5) != draw(config, PERFECT, 6)


def test_off_changes_nothing(envs: Any) -> None:
    for env in envs.values():
        record, log = played(env, load_randomisation("off"))
        assert same(log, played(env, RandomisationConfig())[1])
        assert record == {}


def test_the_record_holds_what_has_an_effect_there(envs: Any) -> None:
    preset = load_randomisation("sim2real")
    kinematic, legged, analytic = (set(played(envs[k], preset, 1)[0]) for k in ("kinematic", "legged", "analytic"))
    assert kinematic == set(KNOBS) - LEG_KNOBS
    assert legged == set(KNOBS) - CAMERA_KNOBS - {"lag_s"}
    assert analytic == set(KNOBS) - LEG_KNOBS - CAMERA_KNOBS


class Ruler:
    """A world that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, tuple[float, float, float]]] = []
        self.now_s = 0.0

    def advance(self, command: Any, duration_s: float) -> bool:
        self.told.append((self.now_s, tuple(command)))
        self.now_s += duration_s
        return False


def test_a_command_takes_effect_after_its_delay() -> None:
    world, way = Ruler(), Actuation(ActuationDraw(delay_s=0.13, gain=(1.1, 0.9, 1.0)), 0)
    for vx in (1.0, 2.0, 3.0):
        way.advance(world, (vx, 1.0, 0.5), 0.1)
    began: list[tuple[float, float]] = []
    for at_s, command in world.told:
        if not began or began[-1][1] != command[0]:
            began.append((at_s, command[0]))
    assert np.allclose(began, [(0.0, 0.0), (0.13, 1.1), (0.23, 2.2)])
    assert world.told[-1][1][1:] == pytest.approx((0.9, 0.5))
    assert world.now_s == pytest.approx(0.3)


def test_slip_takes_up_to_its_share_of_a_tick() -> None:
    world, way = Ruler(), Actuation(ActuationDraw(slip=0.4), 0)
    for _ in range(2000):
        way.advance(world, (1.0, 0.0, 0.0), 0.1)
    kept = np.array([command[0] for _, command in world.told])
    assert 0.6 <= kept.min() < 0.61
    assert 0.99 < kept.max() <= 1.0
    assert kept.mean() == pytest.approx(0.8, abs=0.01)


def test_the_lag_is_the_drawn_one_and_the_robots_own_after_it(envs: Any) -> None:
    env = envs["kinematic"]
    speeds = []
    for config in (RandomisationConfig(lag_s=(0.3, 0.3)), RandomisationConfig()):
        env.reset(seed=0, options={"scene": hall(), "randomisation": config})
        env._world.spec = dataclasses.replace(env.robot, acceleration_max_mps2=1e9)
        speeds.append(float(env.step(np.array([1.0, 0.0, 0.0], np.float32))[4]["velocity"][0]))
    env._world.spec = env.robot
    rise = [1 - math.exp(-0.1 / lag_s) for lag_s in (0.3, env.robot.lag_s)]
    assert speeds == pytest.approx([env.robot.vx_max_mps * r for r in rise], rel=1e-5)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"friction": (1.0, 0.5)}, "friction"),
        ({"slip": (0.0, 1.2)}, "slip: expected within 0 to 1"),
        ({"lag_s": (-0.1, 0.1)}, "lag_s: expected 0 or more"),
        ({"missing_lidar": 1.5}, "missing_lidar"),
        ({"odometry_scale": (0.1, -0.1)}, "ascending"),
        ({"push_mps": (0.0, math.nan)}, "push_mps"),
        ({"push_mps": (0.0, 1.0), "push_period_s": (0.0, 0.0)}, "push_period_s"),
        ({"motor_strength": (0.0, 1.0)}, "motor_strength"),
        ({"dropped_frames": (0.0, 1.0)}, "dropped_frames"),
    ],
)
def test_knobs_out_of_range_are_one_clear_line(knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        RandomisationConfig(**knobs)
    assert "\n" not in str(error.value)


def test_an_unknown_knob_or_preset_is_named(tmp_path: Any) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("frictoin = [0.5, 1.0]\n")
    with pytest.raises(ConfigError, match="did you mean 'friction'"):
        load_randomisation(str(file))
    with pytest.raises(ConfigError, match="did you mean 'sim2real'"):
        load_randomisation("sim2reel")
