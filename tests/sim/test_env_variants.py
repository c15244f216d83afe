"""Every registered environment, the three fidelities behind one class, and what they refuse."""

from __future__ import annotations

import dataclasses
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from one_hall import hall

import sim
from robonav.config import load_robot
from robonav.errors import RobonavError
from robonav.types import LidarSpec, RobotSpec
from sim.env import NavigateEnv
from sim.walker import LeggedConfig
from sim.world import WorldConfig

AHEAD = np.array([1.0, 0.0, 0.0], np.float32)


def with_beams(beams: int) -> RobotSpec:
    return dataclasses.replace(load_robot("a1"), lidar=LidarSpec(beams=beams))


def run(env: NavigateEnv, steps: int, **options: object) -> list[dict]:
    env.reset(seed=3, options={"scene": hall(), **options})
    infos = []
    for _ in range(steps):
        *_, terminated, truncated, info = env.step(AHEAD)
        infos.append(info)
        if terminated or truncated:
            break
    return infos


@pytest.mark.parametrize("name", sim.ENVIRONMENTS)
def test_every_id_passes_gymnasiums_checker_without_a_warning(name: str) -> None:
    made = gymnasium.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped, skip_render_check=True)
    made.close()


def test_the_ids_are_what_they_say() -> None:
    made = {name: gymnasium.make(name).unwrapped for name in sim.ENVIRONMENTS}
    assert "depth_m" in made["robonav/NavigateDepth-v0"].observation_space.spaces
    first, info = made["robonav/NavigateCrowd-v0"].reset(seed=0)
    assert made["robonav/NavigateCrowd-v0"].scene.movers
    made["robonav/NavigateMemory-v0"].reset(seed=0)
    assert made["robonav/NavigateMemory-v0"].scene.name.startswith("tmaze")
    first, info = made["robonav/NavigateSim2Real-v0"].reset(seed=0)
    assert {"command_delay_s", "odometry_scale", "dropped_frames", "missing_lidar"} <= set(info["randomisation"])
    assert "contact" in first
    assert made["robonav/NavigateAnalytic-v0"].fidelity == "analytic"
    assert made["robonav/NavigateLegged-v0"].fidelity == "legged"
    assert made[sim.ENV_ID].fidelity == "kinematic"
    for one in made.values():
        one.close()


def test_analytic_and_kinematic_episodes_agree(env) -> None:
    ours, theirs = env(fidelity="analytic"), env(fidelity="kinematic")
    for a, b in zip(run(ours, 80), run(theirs, 80), strict=True):
        assert np.allclose(a["position_world_m"], b["position_world_m"], atol=1e-6)
        assert a["clearance_m"] == pytest.approx(b["clearance_m"], abs=1e-3)
        assert a.get("outcome") == b.get("outcome")
    assert a["outcome"] == "success"


def test_the_legged_robot_walks_the_same_hall(env) -> None:
    infos = run(env(fidelity="legged"), 80)
    last = infos[-1]
    assert last["outcome"] == "success"
    assert not last["fallen"]
    assert last["path_m"] > 4.4
    assert max(i["velocity"][0] for i in infos) > 0.7


def test_a_fall_ends_the_episode_as_a_collision_does(env) -> None:
    one = env(fidelity="legged", world=LeggedConfig(motor_strength=0.05))  # it cannot carry itself
    infos = run(one, 30)
    assert infos[-1]["fallen"]
    assert infos[-1]["outcome"] == "collision"
    assert infos[-1]["clearance_m"] > 0.0


def test_legged_episodes_repeat_bit_for_bit(env) -> None:
    first, second = env(fidelity="legged", sensors="real"), env(fidelity="legged", sensors="real")
    run(second, 5)  # a past must not matter
    a, b = run(first, 12), run(second, 12)
    assert all(np.array_equal(x["position_world_m"], y["position_world_m"]) for x, y in zip(a, b, strict=True))
    observed = first.observation(), second.observation()
    for name in ("scan_m", "tilt_rad", "contact", "pose_odom_base"):
        assert np.array_equal(getattr(observed[0], name), getattr(observed[1], name)), name
    assert np.abs(observed[0].tilt_rad).max() > 0.0


def test_analytic_worlds_cast_more_beams_than_pybullet_does(env) -> None:
    one = env(fidelity="analytic", robot=with_beams(20_000))
    assert run(one, 2)[-1]["path_m"] > 0
    assert one.observation().scan_m.shape == (20_000,)


def test_a_reset_takes_another_preset_or_randomisation_for_its_episode_alone(env) -> None:
    one = env(scene="empty")
    _, info = one.reset(seed=2, options={"preset": "maze", "randomisation": "sim2real"})
    assert info["scene"] == "maze-2"
    assert info["randomisation"]
    _, info = one.reset(seed=2)
    assert info["scene"] == "empty-2"
    assert info["randomisation"] == {}


def test_analytic_movers_are_drawn(env) -> None:
    one = env(fidelity="analytic", scene="crowd-few", render_mode="rgb_array", view="top")
    one.reset(seed=1)
    before = one.render()
    for _ in range(5):
        one.step(np.zeros(3, np.float32))  # the robot stands still, so that what changes are the movers
    assert (one.render() != before).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fidelity": "real"}, "'kinematic', 'legged' or 'analytic'"),
        ({"fidelity": "analytic", "depth": True}, "no depth camera"),
        ({"fidelity": "analytic", "world": LeggedConfig()}, "WorldConfig"),
        ({"fidelity": "kinematic", "world": LeggedConfig()}, "WorldConfig"),
        ({"fidelity": "legged", "robot": dataclasses.replace(load_robot("a1"), legs=None)}, "legs"),
        ({"robot": with_beams(20_000)}, "lidar.beams: expected at most 16383, PyBullet's ray batch, got 20000"),
        ({"robot": with_beams(0)}, "lidar.beams: expected 1 or more, got 0"),
        ({"robot": with_beams(0), "fidelity": "analytic"}, "lidar.beams: expected 1 or more, got 0"),
        ({"sensors": "reel"}, "did you mean 'real'"),
        ({"randomisation": "sim2rael"}, "did you mean 'sim2real'"),
        ({"reward": "spares"}, "did you mean 'sparse'"),
        ({"reward": "no/such.toml"}, "existing .toml"),
        ({"scene_options": {"side": 3}}, "unknown key 'side'"),
    ],
)
def test_bad_arguments_are_one_clear_line(options: dict, words: str) -> None:
    with pytest.raises(RobonavError, match=words) as error:
        sim.make_env(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [{"substep_s": 0.0}, {"substep_s": -1.0}, {"clearance_range_m": 0.0}])
def test_a_world_of_negative_sizes_is_one_clear_line(changes: dict) -> None:
    with pytest.raises(RobonavError, match=f"{next(iter(changes))}: expected a number above 0"):
        WorldConfig(**changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scen": hall()}, "did you mean 'scene'"),
        ({"preset": "rom"}, "did you mean 'rooms'"),
        ({"randomisation": "on"}, "no preset 'on'"),
        ({"scene": hall(cylinders=np.array([[2, 0, -0.2]], np.float32))}, "radius"),
        ({"scene": hall(boxes=np.array([[2, 0, np.nan, 1, 0]], np.float32))}, "finite"),
        ({"scene": hall(height_m=-1.0)}, "height_m"),
        ({"scene": hall(goal_radius_m=0.0)}, "goal_radius_m"),
    ],
)
def test_bad_reset_options_are_one_clear_line(env, options: dict, words: str) -> None:
    one = env()
    with pytest.raises(RobonavError, match=words) as error:
        one.reset(seed=0, options=options)
    assert "\n" not in str(error.value)
    one.reset(seed=0)  # and the environment goes on
