"""From a checkpoint to a bundle: one ONNX graph for encode, posterior, memory step and actor, with explicit state.

Only this module and its neighbours ``export_*`` import torch. The graph's outputs over 200 ticks are recorded from
torch, so that a machine without torch can check parity too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deploy.bundle import PlannerParts, make_contract, write_bundle
from deploy.export_card import model_card
from deploy.export_precision import SMALLEST, lowered
from deploy.export_record import read_by, record, record_plans, synthetic_drives, synthetic_ticks
from deploy.graph import OPSET
from policies.bundle import Bundle
from policies.onnx_dreams import PlannedDreams
from policies.planner_layout import PlannerLayout
from robonav.config import package_versions
from robonav.imagination.agent import Agent, AgentState
from robonav.learning.checkpoint import Checkpoint, weights_bytes
from robonav.planning.mppi import MPPIConfig
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

__all__ = ["export", "read_by", "record", "synthetic_drives", "synthetic_ticks", "to_onnx"]

NORMALISATION = "physical units go in (metres, rad, m/s, rad/s); the graph normalises inside"


class PolicyGraph(nn.Module):
    """`Agent.step` on the actor's mean with a flat list of tensors: what is read, action_prev, reset, states."""

    def __init__(self, agent: Agent, spec: RobotSpec) -> None:
        super().__init__()
        self.agent = agent
        self.names = read_by(agent, spec)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns action (1, 3), value (1,), and the next state's tensors."""
        n = len(self.names)
        inputs = dict(zip(self.names, tensors[:n], strict=True))
        action_prev, reset, *state = tensors[n:]
        world = self.agent.model.state_of(state[:-1])
        step = self.agent.step(AgentState(world, state[-1]), inputs, action_prev, reset)
        return (step.action, step.value, *(tensor for _, tensor in step.state.tensors()))


def to_onnx(agent: Agent, spec: RobotSpec) -> bytes:
    """The serialised graph; batch 1, static shapes, named as the contract says."""
    graph = PolicyGraph(agent, spec).eval()
    shapes = {name: shape for name, shape in policy_input_shapes(spec).items() if name in graph.names}
    example = [
        torch.zeros(1, *shape, dtype=torch.uint8 if name == "local_map" else torch.float32)
        for name, shape in shapes.items()
    ]
    states = list(agent.initial_state(1).tensors())
    example += [torch.zeros(1, ACTION_SIZE), torch.zeros(1), *(tensor for _, tensor in states)]
    input_names = [*shapes, "action_prev", "reset", *(f"state.{name}" for name, _ in states)]
    output_names = ["action", "value", *(f"next.{name}" for name, _ in states)]
    return exported(graph, example, input_names, output_names)


def exported(module: nn.Module, example: Sequence[Tensor], inputs: list[str], outputs: list[str]) -> bytes:
    """A module as an ONNX graph with static shapes and named tensors."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module,
            tuple(example),
            str(path),
            input_names=inputs,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )
        return path.read_bytes()


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter talks a lot; errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export(
    checkpoint: Checkpoint,
    out: str | Path,
    name: str,
    ticks: Iterable[Mapping[str, Any]],
    notes: str = "",
    planner: MPPIConfig | None = None,
    precision: str = "fp32",
    weights: bool = True,
) -> Bundle:
    """Exports a checkpoint to the bundle folder `out`.

    Args:
        checkpoint: from `robonav.learning.checkpoint.load_agent`.
        out: folder; a bundle that is there already is replaced whole.
        name: of the bundle.
        ticks: PARITY_TICKS ticks of PolicyInput arrays plus ``reset``, best from real episodes; with their
            ``observation`` too where a planner is exported.
        notes: Markdown that is added to the model card: data, results with intervals.
        planner: dials of the imagination planner, which is exported too if given.
        precision: of the weights, "fp32", "fp16" or "int8".
        weights: whether the bundle keeps the checkpoint's weights, decoders included, for whoever trains on or exports
            again; its large matrices as halves unless the precision is "fp32".

    Raises:
        BundleError: the graphs and torch differ by more than the precision's tolerance; nothing is written then.
    """
    agent, spec, ticks = checkpoint.agent, checkpoint.spec, list(ticks)
    situation = checkpoint.situation
    states = {key: tuple(tensor.shape) for key, tensor in agent.initial_state(1).tensors()}
    reads, versions = read_by(agent, spec), package_versions()
    contract = make_contract(
        *(name, spec, states, situation),
        reads=reads,
        normalisation=NORMALISATION,
        versions=versions,
        precision=precision,
    )
    recording = record(agent, spec, ticks)
    card, graph = model_card(name, checkpoint, notes, precision), lowered(to_onnx(agent, spec), precision)
    dreams, parts = None, None
    if planner is not None:
        from deploy.export_dreams import dreams_to_onnx
        from deploy.export_planner import planner_to_onnx
        from deploy.export_rollout import is_quick

        layout = layout_of(agent, spec, planner)
        dreams = lowered(dreams_to_onnx(agent, PlannedDreams(planner.dreams, layout.own, planner.horizon)), precision)
        if is_quick(agent):  # other memories' dreams are planned with in numpy
            plans = record_plans(agent, spec, layout, recording, ticks, situation)
            parts = PlannerParts(lowered(planner_to_onnx(agent, layout), precision), plans)
    kept = weights_bytes(checkpoint, math.inf if precision == "fp32" else SMALLEST) if weights else None
    return write_bundle(out, graph, contract, recording, card, dreams=dreams, planner=parts, weights=kept)


def layout_of(agent: Agent, spec: RobotSpec, config: MPPIConfig) -> PlannerLayout:
    """Sizes of an agent's planner."""
    c = agent.model.config
    return PlannerLayout(config, spec.dt_s, (c.sampled_groups, c.classes))
