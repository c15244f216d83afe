"""Who drives the episodes that a world model is measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robonav.imagination.agent import Agent
from robonav.learning.streams import Arrays, Streams
from robonav.types import ACTION_SIZE, Float, Policy, RobotSpec

SMOOTHING = 0.9  # of random commands, from tick to tick
_PUSH = np.array([0.35, 0.0, 0.0])  # their mean


class ActorDriver:
    """An agent's actor, with noise of so many of its own standard deviations."""

    def __init__(self, agent: Agent, worlds: int, noise: float) -> None:
        self._agent, self._noise = agent, noise
        self._state = agent.initial_state(worlds)
        self._rngs = [np.random.default_rng(0)] * worlds
        self._fresh = np.ones(worlds, np.float32)
        self._previous = np.zeros((worlds, ACTION_SIZE), np.float32)

    def begin(self, world: int, rng: np.random.Generator) -> None:
        """See `Driver.begin`."""
        self._rngs[world], self._fresh[world], self._previous[world] = rng, 1.0, 0.0

    @torch.no_grad()
    def actions(self, streams: Streams, inputs: Arrays, driven: NDArray[np.bool_]) -> Float:
        """See `Driver.actions`."""
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        previous, reset = torch.from_numpy(self._previous), torch.from_numpy(self._fresh)
        features, self._state = self._agent.observe(self._state, tensors, previous, reset)
        policy = self._agent.behavior.actor(features)
        jitter = np.stack([rng.normal(size=ACTION_SIZE) for rng in self._rngs]).astype(np.float32)
        action = policy.mean.numpy() + self._noise * policy.std.numpy() * jitter
        self._previous = np.clip(action, -1.0, 1.0)
        self._fresh = np.zeros_like(self._fresh)
        return self._previous.copy()


class RandomDriver:
    """Smooth random commands that mostly go forward."""

    def __init__(self, worlds: int) -> None:
        self._rngs = [np.random.default_rng(0)] * worlds
        self._action = np.zeros((worlds, ACTION_SIZE))

    def begin(self, world: int, rng: np.random.Generator) -> None:
        """See `Driver.begin`."""
        self._rngs[world], self._action[world] = rng, 0.0

    def actions(self, streams: Streams, inputs: Arrays, driven: NDArray[np.bool_]) -> Float:
        """See `Driver.actions`."""
        pushed = np.stack([rng.normal(size=ACTION_SIZE) for rng in self._rngs])
        self._action = SMOOTHING * self._action + np.sqrt(1 - SMOOTHING**2) * pushed
        return np.clip(self._action + _PUSH, -1.0, 1.0).astype(np.float32)


class PolicyDriver:
    """A policy of its own in each world, as it is."""

    def __init__(self, make: Callable[[RobotSpec], Policy], streams: Streams, worlds: int) -> None:
        self._policies = [make(streams.robot(world)) for world in range(worlds)]
        self._states: list[Any] = [None] * worlds

    def begin(self, world: int, rng: np.random.Generator) -> None:
        """See `Driver.begin`."""
        self._states[world] = self._policies[world].reset(int(rng.integers(2**31)))

    def actions(self, streams: Streams, inputs: Arrays, driven: NDArray[np.bool_]) -> Float:
        """See `Driver.actions`."""
        out = np.zeros((len(driven), ACTION_SIZE), np.float32)
        for world in np.flatnonzero(driven).tolist():
            policy = self._policies[world]
            self._states[world], decision = policy.act(self._states[world], streams.observation(world))
            out[world] = streams.robot(world).velocity_to_action(decision.command.velocity)
        return out
