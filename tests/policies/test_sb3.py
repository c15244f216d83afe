"""Opponents of Stable-Baselines3: they train on the agent's observations, and drive without the library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies.registry import make_policy
from policies.sb3_config import ActorConfig, Sb3Config
from policies.sb3_policy import FILE, Actor, Sb3Policy, save
from robonav.cli.main import main
from robonav.config import load_robot
from robonav.errors import CheckpointError, ConfigError, PolicyError
from robonav.types import RobotSpec
from robonav.world_model.encoders import EncoderConfig
from sim import make_vec
from tests.mapping.raycast import cast, observe, room

pytest.importorskip("stable_baselines3", reason="pip install 'robonav[sb3]'")

from policies import sb3  # (after the check that the library is there)

SPEC = load_robot("a1")
SMALL = EncoderConfig(sector_width=4, vector_width=8, map_width=8, hidden=16, flow=True, motion=True, robot=True)
WALLS = room(-1.0, -3.0, 9.0, 3.0)


def config(algorithm: Any, **values: Any) -> Sb3Config:
    actor = ActorConfig(algorithm, (16,), SMALL)
    return replace(Sb3Config(actor, steps=96, rollout=16, batch=16, replay=200, start=32), **values)


def worlds(count: int = 2, **options: Any) -> Any:
    return make_vec(count, scene="empty", fidelity="analytic", autoreset_mode="same_step", **options)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_it_trains_and_the_file_acts_as_the_library_does(algorithm: str, tmp_path: Path) -> None:
    told: list[str] = []
    file = sb3.train(worlds(), config(algorithm, save_every=40), SPEC, tmp_path, told.append)
    assert file == tmp_path / FILE and (tmp_path / "progress.csv").exists()
    assert len(told) == 3 and told[-1].startswith("96 steps")
    policy = make_policy(tmp_path, SPEC)
    assert isinstance(policy, Sb3Policy) and policy.name.endswith(f":{algorithm}")
    assert make_policy(file, SPEC).name == f"{FILE}:{algorithm}"
    scan = cast((0, 0, 0), SPEC.lidar, WALLS)
    _, decision = policy.act(policy.reset(0), observe((0, 0, 0), (5, 1), scan))
    assert decision.why == algorithm and np.isfinite(decision.command.velocity).all()


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_copied_actor_is_the_librarys_own(algorithm: str) -> None:
    env = worlds(3)
    model = sb3.make_model(sb3.GymVecEnv(env), config(algorithm), SPEC)
    observation, _ = env.reset(seed=4)
    for _ in range(3):
        observation, *_ = env.step(np.tile(np.array([[0.6, 0.1, 0.3]], np.float32), (3, 1)))
    for p in model.policy.parameters():  # the fresh mean is nearly 0: make it matter
        p.data += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    expected, _ = model.predict(observation, deterministic=True)
    actor = sb3.actor_of(model, config(algorithm).actor, SPEC)
    found = actor({name: torch.from_numpy(array) for name, array in observation.items()})
    assert np.allclose(found.detach().numpy(), expected, atol=1e-5)
    assert 0.05 < np.abs(expected).max() <= 1.0
    env.close()


def test_episodes_end_as_the_library_wants_them_to() -> None:
    env = sb3.GymVecEnv(worlds())
    env.seed(7)
    first = env.reset()
    ahead, ended = np.tile(np.array([[1.0, 0.0, 0.0]], np.float32), (2, 1)), []
    for _ in range(300):
        observation, rewards, dones, infos = env.step(ahead)
        for i in np.flatnonzero(dones):
            ended.append(infos[i])
            assert not observation["last_command"][i].any(), "the observation is the next episode's"
            assert infos[i]["terminal_observation"]["last_command"][0] == pytest.approx(SPEC.vx_max_mps)
            assert infos[i]["is_success"] == (rewards[i] > 0.5) and not infos[i]["TimeLimit.truncated"]
        assert all(not infos[i] for i in np.flatnonzero(~dones))
    assert ended
    env.seed(7)
    assert all(np.array_equal(first[name], array) for name, array in env.reset().items())
    env.close()


def test_worlds_that_reset_later_are_refused() -> None:
    env = make_vec(1, scene="empty", fidelity="analytic")
    with pytest.raises(ConfigError, match=r"autoreset_mode: expected same_step, got NEXT_STEP"):
        sb3.GymVecEnv(env)


def test_the_command_trains_and_the_benchmark_takes_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ppo"
    sizes = ["--layers", "16", "--steps", "64", "--rollout", "16", "--batch", "32"]
    assert main(["sb3", "--out", str(out), *sizes, "--envs", "2", "--scenes", "empty"]) == 0
    nav = ["bench", "nav", "--suite", "empty", "--policies", str(out), "--episodes", "1", "--workers", "1"]
    assert main([*nav, "--delay-ms", "0"]) == 0
    assert "1.000" in capsys.readouterr().out
    assert main(["sb3", "--out", str(out), "--envs", "0"]) == 2
    assert main(["sb3", "--out", str(out), "--algorithm", "dqn"]) == 2
    assert main(["sb3", "--out", str(out), "--scenes", "roms"]) == 2


def test_what_does_not_fit_is_one_line(a1: RobotSpec, tmp_path: Path) -> None:
    save(tmp_path / FILE, Actor(ActorConfig("ppo", (16,), SMALL), a1), a1, {})
    with pytest.raises(PolicyError, match="planner"):
        make_policy(tmp_path, a1, planner="mppi")
    with pytest.raises(PolicyError, match="rate_hz"):
        make_policy(tmp_path, replace(a1, name="other", rate_hz=20.0))
    assert make_policy(tmp_path, load_robot("vision60")).spec.name == "vision60"  # type: ignore[attr-defined]
    (tmp_path / FILE).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        make_policy(tmp_path, a1)
    for values in ({"gamma": 1.0}, {"batch": 0}):
        with pytest.raises(ConfigError, match=next(iter(values))):
            Sb3Config(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="layers"):
        ActorConfig(layers=())
