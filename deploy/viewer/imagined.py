"""What a bundle's world model imagines along a log: the planner's own candidates, or the actor's and constant ones.

The bundle's ``dreams.onnx`` is asked, so no torch is needed. Shape letters: K candidates, L steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import wire
from deploy.viewer.extras import Rollouts
from policies.bundle import Bundle
from policies.bundle_policy import BundleState
from policies.onnx_dreams import OnnxDreams, OnnxImagination, Singles
from robonav.planning.window import reachable_commands
from robonav.types import Decision, Dreams, Observation, RobotSpec

MAX_TICKS = 400  # of a log at which something is imagined, evenly over it
NOISE = 0.7  # of the actor's proposals, in its own standard deviations
SAMPLES = (4, 3, 5)  # constant commands: vx, vy, yaw rates


@dataclass
class Imagined:
    """Collects rollouts along a replay: give `on_tick` to `deploy.replay.replay`, and `watch` where a planner plans.

    Args:
        spec: the robot.
        start_ns: that seconds count from.
        ticks: of the log.
    """

    spec: RobotSpec
    start_ns: int
    ticks: int
    dreams: OnnxDreams | None = None
    why_not: str = ""
    seen: int = 0
    t_s: list[float] = field(default_factory=list)
    paths: list[Singles] = field(default_factory=list)
    scores: list[Singles] = field(default_factory=list)
    doubts: list[float] = field(default_factory=list)
    last: Dreams | None = None  # what the planner dreamt last

    def watch(self, bundle: Bundle) -> Bundle:
        """The bundle with an eye on its dreams; the same where it has none."""
        if bundle.dreams_model is None:
            self.why_not = f"bundle '{bundle.contract.name}' has no dreams.onnx; export it with --planner"
            return bundle
        self.dreams = bundle.dreams()
        values = {name: getattr(bundle, name) for name in Bundle.__dataclass_fields__}
        return _WatchedBundle(**values).watched_by(self)

    def on_tick(self, message: wire.ObservationMsg, state: BundleState, decision: Decision) -> None:
        """Imagines at this tick if its turn has come."""
        self.seen += 1
        if self.dreams is None or (self.seen - 1) % max(1, -(-self.ticks // MAX_TICKS)):
            return
        observation = wire.unpack_observation(message)
        dreamt = self.last or self._ask(self.dreams, state, observation)
        self.last = None
        score = (dreamt.rewards + dreamt.values).astype(np.float32)
        known = np.where(np.isfinite(score), score, -np.inf)
        self.t_s.append((message.stamp_ns - self.start_ns) * 1e-9)
        self.paths.append(paths_of(observation, dreamt.actions, self.spec))
        self.scores.append(np.where(np.isfinite(score), score, np.nan).astype(np.float32))
        self.doubts.append(float(dreamt.doubts[int(known.argmax())]))

    def rollouts(self) -> Rollouts | None:
        """All that was imagined."""
        if not self.t_s:
            return None
        times, doubts = np.array(self.t_s), np.array(self.doubts, np.float32)
        return Rollouts(times, np.stack(self.paths), np.stack(self.scores), doubts)

    def _ask(self, dreams: OnnxDreams, state: BundleState, observation: Observation) -> Dreams:
        """The actor's proposals and constant commands, dreamt from the state of now; the noise is the tick's own."""
        sizes, rng = dreams.planned, np.random.default_rng(self.seen)
        commands = reachable_commands(self.spec, observation.twist_base, SAMPLES)
        constants = self.spec.velocity_to_action(commands).astype(np.float32)[: sizes.candidates - sizes.own]
        wanted = np.zeros((sizes.own + len(constants), sizes.horizon, 3), np.float32)
        wanted[sizes.own :] = constants[:, None]
        jitter = NOISE * rng.standard_normal((sizes.own, sizes.horizon, 3), np.float32)
        jitter[:1] = 0.0
        luck = rng.gumbel(size=(sizes.horizon, 1, *dreams.noise_shape)).astype(np.float32)
        gumbel = np.repeat(luck, len(wanted), axis=1)
        return dreams.of(state.memory)(wanted, jitter.astype(np.float32), gumbel)


class _WatchedBundle(Bundle):
    """A bundle whose dreams are also shown to somebody."""

    __slots__ = ("_eye",)
    _eye: Imagined

    def watched_by(self, eye: Imagined) -> _WatchedBundle:
        object.__setattr__(self, "_eye", eye)
        return self

    def dreams(self) -> OnnxDreams:
        """See `Bundle.dreams`."""
        dreams = self._eye.dreams
        assert dreams is not None
        return _Watched(dreams, self._eye)


class _Watched(OnnxDreams):
    """Dreams that are also shown to somebody; of the rounds of a tick the last."""

    def __init__(self, dreams: OnnxDreams, eye: Imagined) -> None:
        self.__dict__.update(dreams.__dict__)
        self._eye = eye

    def of(self, state: Any) -> OnnxImagination:
        """See `OnnxDreams.of`."""
        return _WatchedImagination(super().of(state), self._eye)


class _WatchedImagination(OnnxImagination):
    def __init__(self, imagination: OnnxImagination, eye: Imagined) -> None:
        self.__dict__.update(imagination.__dict__)
        self._eye = eye

    def __call__(self, wanted: Singles, jitter: Singles, gumbel: Singles) -> Dreams:
        found = super().__call__(wanted, jitter, gumbel)
        self._eye.last = found
        return found


def paths_of(observation: Observation, actions: NDArray[Any], spec: RobotSpec) -> Singles:
    """Where plans (K, L, 3) of normalised actions lead in odom, by dead reckoning: (K, L + 1, 2)."""
    velocity = spec.action_to_velocity(np.asarray(actions))
    x, y, yaw = (float(v) for v in observation.pose_odom_base)
    turned = np.cumsum(velocity[..., 2], axis=1) * spec.dt_s
    middle = yaw + turned - velocity[..., 2] * spec.dt_s / 2
    c, s = np.cos(middle), np.sin(middle)
    steps = np.stack([c * velocity[..., 0] - s * velocity[..., 1], s * velocity[..., 0] + c * velocity[..., 1]], -1)
    path = np.cumsum(steps * spec.dt_s, axis=1) + np.array([x, y])
    start = np.broadcast_to(np.array([x, y]), (len(path), 1, 2))
    return np.concatenate([start, path], axis=1).astype(np.float32)
