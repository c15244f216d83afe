"""PPO and SAC of Stable-Baselines3 on the agent's observations and environment steps: opponents that learn model-free.

Their networks begin with the agent's observation encoder, which they train. Everything else is the library's: its
replay, its losses, and its defaults but for what `Sb3Config` names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor

from policies.sb3_config import ActorConfig, Sb3Config
from policies.sb3_policy import FILE, Actor, save
from robonav.errors import ConfigError, explain
from robonav.types import RobotSpec
from robonav.world_model.encoders import EncoderConfig, ObservationEncoder

Arrays = dict[str, NDArray[Any]]
Report = Callable[[str], None]


class GymVecEnv(VecEnv):
    """A vector environment of Gymnasium, with autoreset in the same step, as Stable-Baselines3 expects them."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Takes the environment over; `close` closes it.

        Raises:
            ConfigError: it resets its worlds at another time.
        """
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ConfigError(explain("autoreset_mode", "same_step", getattr(mode, "name", mode)))
        self.env = env
        self._actions: NDArray[np.float32] = np.zeros((env.num_envs, 0), np.float32)
        self._first_seed: int | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Of the next reset: world i begins with seed + i."""
        self._first_seed = seed
        return [None if seed is None else seed + i for i in range(self.num_envs)]

    def reset(self) -> Arrays:
        """First observations of all worlds."""
        observation, _ = self.env.reset(seed=self._first_seed)
        self._first_seed = None
        arrays: Arrays = observation
        return arrays

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Arrays, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """One step of all worlds; the observation of one whose episode is over is the first of its next one."""
        observation, rewards, terminated, truncated, told = self.env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated).tolist():
            infos[i] = {
                "terminal_observation": told["final_obs"][i],
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "is_success": told["final_info"]["outcome"][i] == "success",
            }
        return observation, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the whole, for each world."""
        return [getattr(self.env, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not there: worlds of a batch have no attributes of their own."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not there: worlds of a batch have no methods of their own."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """None of them is."""
        return [False] * self.num_envs


class Features(BaseFeaturesExtractor):
    """The agent's observation encoder as what the library calls a features extractor."""

    def __init__(self, observation_space: Any, encoder: EncoderConfig, spec: RobotSpec) -> None:
        super().__init__(observation_space, encoder.hidden)
        self.encoder = ObservationEncoder(encoder, spec)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """`PolicyInput` arrays with leading shape B -> (B, F)."""
        features: Tensor = self.encoder(observations)
        return features


def make_model(env: VecEnv, config: Sb3Config, spec: RobotSpec) -> BaseAlgorithm:
    """The algorithm with fresh networks."""
    actor = config.actor
    policy: dict[str, Any] = {
        "features_extractor_class": Features,
        "features_extractor_kwargs": {"encoder": actor.encoder, "spec": spec},
        "net_arch": list(actor.layers),
        "activation_fn": actor.activation,
        "normalize_images": False,  # the encoder does that
    }
    options: dict[str, Any] = {
        **{"gamma": config.gamma, "learning_rate": config.learning_rate, "batch_size": config.batch},
        **{"seed": config.seed, "policy_kwargs": policy, "device": "cpu"},
    }
    if actor.algorithm == "ppo":
        return PPO("MultiInputPolicy", env, n_steps=config.rollout, ent_coef=config.entropy, **options)
    own: dict[str, Any] = {
        "buffer_size": config.replay,
        "learning_starts": config.start,
        "gradient_steps": config.gradient_steps,
    }
    return SAC("MultiInputPolicy", env, train_freq=1, **own, **options)


def actor_of(model: BaseAlgorithm, config: ActorConfig, spec: RobotSpec) -> Actor:
    """A copy of what the algorithm acts with."""
    policy: Any = model.policy
    if config.algorithm == "ppo":
        parts = policy.features_extractor.encoder, policy.mlp_extractor.policy_net, policy.action_net
    else:
        parts = policy.actor.features_extractor.encoder, policy.actor.latent_pi, policy.actor.mu
    actor = Actor(config, spec)
    for own, trained in zip((actor.encoder, actor.layers, actor.out), parts, strict=True):
        own.load_state_dict(trained.state_dict())
    return actor


class _Saving(BaseCallback):
    """Saves the actor now and then, and tells how it goes."""

    def __init__(self, config: Sb3Config, spec: RobotSpec, out: Path, report: Report) -> None:
        super().__init__()
        self._config, self._spec, self._out, self._report = config, spec, out, report
        self._next, self._began = config.save_every, time.monotonic()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next += self._config.save_every
            self.save()
        return True

    def save(self) -> None:
        """Writes the actor as it is."""
        minutes = (time.monotonic() - self._began) / 60
        info = {"env_steps": self.num_timesteps, "minutes": round(minutes, 2), "seed": self._config.seed}
        save(self._out / FILE, actor_of(self.model, self._config.actor, self._spec), self._spec, info)
        known = [bool(success) for success in self.model.ep_success_buffer or ()]
        success = f"{sum(known) / len(known):.2f} of the last {len(known)} episodes" if known else "no episode yet"
        self._report(f"{self.num_timesteps} steps, {minutes:.1f} min, success {success}")


def train(
    env: VectorEnv[Any, Any, Any], config: Sb3Config, spec: RobotSpec, out: Path, report: Report = lambda _: None
) -> Path:
    """Trains on a vector environment, closes it, and returns the actor's file in the folder `out`.

    The folder also gets the library's ``progress.csv``.

    Raises:
        ConfigError: the environment resets its worlds at another time than in the same step.
    """
    worlds = VecMonitor(GymVecEnv(env))
    try:
        model = make_model(worlds, config, spec)
        out.mkdir(parents=True, exist_ok=True)
        model.set_logger(configure(str(out), ["csv"]))
        saving = _Saving(config, spec, out, report)
        model.learn(config.steps, callback=saving, log_interval=1 if config.actor.algorithm == "ppo" else 20)
        saving.save()
    finally:
        worlds.close()
    return out / FILE
