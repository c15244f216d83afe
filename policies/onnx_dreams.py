"""The planner's dreams in onnxruntime: what `robonav.planning.mppi` asks of a world model, without torch.

Shape letters: K candidates, P of them the actor's, L horizon, A action size, S sampled groups, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.contract import STATE_PREFIX, BundleContract
from policies.onnx_session import open_session
from policies.onnx_step import Arrays
from robonav.config import require_at_least
from robonav.errors import BundleError, ConfigError, explain
from robonav.types import Dreams

DREAM_INPUTS = ("latent", "wanted", "jitter", "gumbel")
DREAM_OUTPUTS = ("actions", "rewards", "values", "doubts", "dangers")
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PlannedDreams:
    """Sizes that a graph of dreams was exported with."""

    candidates: int = 64
    """K."""
    own: int = 26
    """P."""
    horizon: int = 12
    """L."""

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        require_at_least(self, {"candidates": 1, "own": 1, "horizon": 1})
        if self.own > self.candidates:
            raise ConfigError(explain("dreams: own", f"at most candidates = {self.candidates}", self.own))


class OnnxDreams:
    """The graph of a bundle that dreams K candidates at once.

    Args:
        model: bytes of the ONNX file.
        contract: of the bundle, whose states the dreams start from.
        where: stands in front of error messages.

    Raises:
        BundleError: no ONNX graph, or one with other tensors.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, model: bytes, contract: BundleContract, where: str = "dreams.onnx") -> None:
        self._session = open_session(model, where)
        shapes = {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}
        states = {STATE_PREFIX + t.name: t.shape for t in contract.states if t.name != "latent"}
        got = {name: shape for name, shape in shapes.items() if name not in DREAM_INPUTS}
        if got != states or set(DREAM_INPUTS) - set(shapes):
            raise BundleError(explain(where, f"inputs {sorted(states)}", sorted(got), "export the bundle again"))
        gives = {tensor.name for tensor in self._session.get_outputs()}
        if set(DREAM_OUTPUTS) - gives:
            raise BundleError(
                explain(where, f"outputs {sorted(DREAM_OUTPUTS)}", sorted(gives), "export the bundle again")
            )
        self.planned = PlannedDreams(shapes["wanted"][0], shapes["jitter"][0], shapes["wanted"][1])
        self.noise_shape = (shapes["gumbel"][2], shapes["gumbel"][3])
        self._states = [name for name in shapes if name.startswith(STATE_PREFIX)]

    def of(self, state: Arrays) -> OnnxImagination:
        """Dreams from a state of the bundle's step: its memory and its latent, by state name."""
        start = {name: state[name.removeprefix(STATE_PREFIX)] for name in self._states}
        return OnnxImagination(self, {**start, "latent": state["latent"]})

    def run(self, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Actions (K, L, A), and (K,) each of the other `DREAM_OUTPUTS`."""
        found: list[NDArray[Any]] = self._session.run(list(DREAM_OUTPUTS), feeds)
        return found


class OnnxImagination:
    """See `robonav.planning.mppi.Imagination`. Fewer candidates than the graph has are filled up with standstill."""

    def __init__(self, dreams: OnnxDreams, start: dict[str, NDArray[Any]]) -> None:
        self._dreams, self._start = dreams, start
        self.noise_shape = dreams.noise_shape

    def __call__(self, wanted: Singles, jitter: Singles, gumbel: Singles) -> Dreams:
        """See `robonav.imagination.candidates.CandidateDreams.forward`."""
        count, planned = len(wanted), self._dreams.planned
        if count < planned.candidates:
            missing = planned.candidates - count
            wanted = np.concatenate([wanted, np.zeros((missing, *wanted.shape[1:]), np.float32)])
            gumbel = np.concatenate([gumbel, np.repeat(gumbel[:, -1:], missing, axis=1)], axis=1)
        feeds = {"wanted": wanted, "jitter": jitter, "gumbel": np.ascontiguousarray(gumbel)}
        return Dreams(*(array[:count] for array in self._dreams.run({**self._start, **feeds})))
