"""Dreams of candidates as one ONNX graph: by it people look at what a bundle imagines.

`robonav.imagination.candidates.CandidateDreams` is the same in torch. Where the memory allows it the dreams are
unrolled by hand (`deploy.export_rollout`), as in the planner's graph. For other memories a step of torch is exported
once and becomes the body of a Scan over the horizon, with the critic's value behind it; the planner then runs in numpy.

Shape letters: K candidates, P of them the actor's, L horizon, A action size, S sampled groups, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deploy.bundle import without_notes
from deploy.export import exported
from deploy.export_rollout import Rollouts, Start, is_quick
from deploy.graph import Graph
from policies.contract import STATE_PREFIX
from policies.onnx_dreams import DREAM_INPUTS, DREAM_OUTPUTS, PlannedDreams
from robonav.imagination.agent import Agent
from robonav.imagination.candidates import Dreaming, dream_on
from robonav.ssm.state import map_state
from robonav.types import ACTION_SIZE
from robonav.world_model.model import WorldModelState

_CARRIED = ("latent", "score", "weight", "doubt", "danger")  # through the steps, besides the memory


class _DreamStep(nn.Module):
    """One step of `CandidateDreams`, with a flat list of tensors in and out."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Carried values, memory, wanted (K, A), jitter (P, A), gumbel (K, S, C) to carried values, memory, action."""
        latent, rewards, weight, doubt, danger, *memory = tensors[:-3]
        now = Dreaming(self.agent.model.state_of(list(memory)), latent, rewards, weight, doubt, danger)
        wanted, jitter, gumbel = tensors[-3:]
        now, action = dream_on(self.agent, now, wanted, jitter, gumbel)
        memory = [tensor for _, tensor in now.state.tensors()]
        return (now.latent, now.rewards, now.weight, now.doubt, now.danger, *memory, action)


class _Ending(nn.Module):
    """Value and doubt of whole dreams."""

    def __init__(self, agent: Agent, horizon: int) -> None:
        super().__init__()
        self.agent, self.horizon = agent, horizon

    def forward(self, memory: Tensor, latent: Tensor, weight: Tensor, doubt: Tensor) -> tuple[Tensor, Tensor]:
        """(K,) discounted value of the last state, and the mean doubt."""
        value = self.agent.behavior.critic.mean(self.agent.model.features(memory, latent))
        return weight * value, doubt / self.horizon


def dreams_to_onnx(agent: Agent, planned: PlannedDreams) -> bytes:
    """The serialised graph; static shapes, named as `policies.onnx_dreams` says."""
    return _unrolled(agent, planned) if is_quick(agent) else _scanned(agent, planned)


def _unrolled(agent: Agent, planned: PlannedDreams) -> bytes:
    g, k, own, horizon = Graph("dreams"), planned.candidates, planned.own, planned.horizon
    config = agent.model.config
    names = [name for name, _ in agent.initial_state(1).world.tensors()]
    for name, tensor in agent.initial_state(1).world.tensors():
        g.input(STATE_PREFIX + name, tuple(tensor.shape))
    g.input("latent", (1, agent.model.latent_size))
    g.input("wanted", (k, horizon, ACTION_SIZE))
    g.input("jitter", (own, horizon, ACTION_SIZE))
    g.input("gumbel", (horizon, k, config.sampled_groups, config.classes))
    layers = {name: STATE_PREFIX + name for name in names if name != "memory"}
    start = Start(STATE_PREFIX + "memory", "latent", layers)
    rollouts = Rollouts(g, agent, start, g.op("Exp", "gumbel"), horizon, doubt_every=1)
    found = rollouts.dream(g.slice("wanted", own, k, 0), k, "jitter", own)
    g.output(found.actions, "actions", (k, horizon, ACTION_SIZE))
    for name in DREAM_OUTPUTS[1:]:
        g.output(getattr(found, name), name, (k,))
    return g.to_bytes()


def _scanned(agent: Agent, planned: PlannedDreams) -> bytes:
    import onnx
    from onnx import helper

    k, own, horizon = planned.candidates, planned.own, planned.horizon
    config = agent.model.config
    one: WorldModelState = agent.initial_state(1).world
    many = WorldModelState(*map_state(lambda x: x.expand(k, *x.shape[1:]).contiguous(), one))
    names = [name for name, _ in one.tensors()]
    shapes = {name: tuple(tensor.shape) for name, tensor in one.tensors()}
    noise = (config.sampled_groups, config.classes)
    carried = [torch.zeros(k, agent.model.latent_size), torch.zeros(k), torch.ones(k), torch.zeros(k), torch.zeros(k)]
    slices = [torch.zeros(k, ACTION_SIZE), torch.zeros(own, ACTION_SIZE), torch.zeros(k, *noise)]
    memory = [tensor for _, tensor in many.tensors()]
    loop = [*_CARRIED, *(f"state.{name}" for name in names)]
    body = _exported(
        _DreamStep(agent).eval(),
        [*carried, *memory, *slices],
        [f"{name}.now" for name in [*loop, "wanted", "jitter", "gumbel"]],
        [f"{name}.next" for name in [*loop, "action"]],
    )
    ending = _exported(
        _Ending(agent, horizon).eval(),
        [many.memory, carried[0], *carried[2:4]],
        [f"end.{name}" for name in ("memory", "latent", "weight", "doubt")],
        ["values", "doubts"],
    )
    ending = onnx.compose.add_prefix(ending, "ending/", rename_inputs=False, rename_outputs=False)

    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, tensor: Tensor) -> str:
        constants.append(onnx.numpy_helper.from_array(tensor.numpy(), name))
        return name

    starts = []
    for name in ["latent", *(f"state.{n}" for n in names)]:
        shape = (k, agent.model.latent_size) if name == "latent" else (k, *shapes[name.removeprefix("state.")][1:])
        nodes.append(helper.make_node("Expand", [name, constant(f"shape.{name}", torch.tensor(shape))], [f"{name}.0"]))
        starts.append(f"{name}.0")
    starts[1:1] = [constant(f"{n}.0", t) for n, t in zip(_CARRIED[1:], carried[1:], strict=True)]
    ends = ["end.latent", "rewards", "end.weight", "end.doubt", "dangers"] + [
        "end.memory" if name == "memory" else f"end.state.{name}" for name in names
    ]
    nodes.append(
        helper.make_node(
            "Scan",
            [*starts, "wanted", "jitter", "gumbel"],
            [*ends, "actions"],
            body=body.graph,
            num_scan_inputs=3,
            scan_input_axes=[1, 1, 0],
            scan_output_axes=[1],
        )
    )
    nodes.extend(ending.graph.node)
    described = {
        **{f"state.{name}": shape for name, shape in shapes.items()},
        "latent": (1, agent.model.latent_size),
        "wanted": (k, horizon, ACTION_SIZE),
        "jitter": (own, horizon, ACTION_SIZE),
        "gumbel": (horizon, k, *noise),
        "actions": (k, horizon, ACTION_SIZE),
        **dict.fromkeys(DREAM_OUTPUTS[1:], (k,)),
    }

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, described[name])

    graph = helper.make_graph(
        nodes,
        "dreams",
        [value(f"state.{name}") for name in names] + [value(name) for name in DREAM_INPUTS],
        [value(name) for name in DREAM_OUTPUTS],
        [*constants, *ending.graph.initializer],
    )
    model = helper.make_model(graph, opset_imports=_opsets(body, ending), ir_version=body.ir_version)
    model.functions.extend([*body.functions, *ending.functions])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _opsets(*models: Any) -> list[Any]:
    versions = {opset.domain: opset for model in models for opset in model.opset_import}
    return list(versions.values())


def _exported(module: nn.Module, example: Sequence[Tensor], inputs: list[str], outputs: list[str]) -> Any:
    """A module as an ONNX model, without the exporter's notes."""
    import onnx

    return without_notes(onnx.load_model_from_string(exported(module, example, inputs, outputs)))
