"""Classical experts beside the agent: they drive some streams, and say in others what they would do (DAgger).

Ross, Gordon and Bagnell 2011. Whatever they say is a label of the step; the actor is drawn towards it with a weight
that fades (`robonav.learning.config.KickstartConfig`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import ConfigError, explain
from robonav.learning.config import WINDOWS, KickstartConfig
from robonav.learning.streams import Streams, WindowStreams
from robonav.types import ACTION_SIZE, Policy, RobotSpec

ExpertFactory = Callable[[str, RobotSpec], Policy]
"""Makes a policy from its name; must be picklable."""
_SALT = 0x65787072  # keeps the draw of who drives apart from the scene's own


class Experts:
    """Who labels, and sometimes drives, the first streams of a worker: a policy in each, or the streams' own window."""

    def __init__(self, config: KickstartConfig, factory: ExpertFactory, streams: Streams, count: int) -> None:
        """No episode yet.

        Raises:
            ConfigError: streams without a window are to be labelled by theirs.
        """
        self.config, self.streams, self.count = config, streams, min(config.streams, count)
        self.window = _window_of(streams, config.policy) if config.policy in WINDOWS else None
        labelling = 0 if self.window else self.count
        self.policies = [factory(config.policy, streams.robot(i)) for i in range(labelling)]
        self.states: list[Any] = [None] * labelling
        self.drives = np.zeros(count, np.bool_)  # whether the expert drives a stream's episode

    def begin(self, stream: int, seed: int) -> None:
        """An episode of a stream begins with the next observation."""
        if stream < self.count:
            if self.window is None:
                self.states[stream] = self.policies[stream].reset(seed)
            self.drives[stream] = np.random.default_rng([seed, _SALT]).random() < self.config.drive

    def actions(
        self, n: int, asked: NDArray[np.floating] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Actions (n, 3) that the experts would take now, and (n,) how much each counts as a label; 0 without one.

        Args:
            n: streams.
            asked: (n, 3) what the agent would do. Where `KickstartConfig.regret_m` is set, a label counts the more the
                worse that is by the window's price: what an expert prefers by little, or as the other of two equal
                ways, need not be learnt. With `slack_m` it is the good command that is nearest to that.
        """
        actions, weights = np.zeros((n, ACTION_SIZE), np.float32), np.zeros(n, np.float32)
        if self.window is not None:
            c = self.config
            asked = asked if c.regret_m or c.slack_m else None
            found = self.window.window_actions(self.count, asked, c.policy == WINDOWS[1], c.slack_m)
            weight = np.clip(found.regret_m / c.regret_m, c.regret_floor, 1.0) if c.regret_m else np.float32(1.0)
            actions[found.known] = found.actions[found.known]
            weights = np.where(found.known, weight, 0.0).astype(np.float32)
        for i, policy in enumerate(self.policies):
            self.states[i], decision = policy.act(self.states[i], self.streams.observation(i))
            actions[i] = self.streams.robot(i).velocity_to_action(decision.command.velocity)
            weights[i] = 1.0
        return actions, weights


def _window_of(streams: Streams, policy: str) -> WindowStreams:
    if not isinstance(streams, WindowStreams):
        want = f"a preset in configs/policies, or collect.simulator = 'analytic' for '{policy}'"
        raise ConfigError(explain("kickstart.policy", want, f"'{policy}' in another simulator"))
    return streams
