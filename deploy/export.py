"""From a checkpoint to a bundle: one ONNX graph for encode, posterior, memory step and actor, with explicit state.

The only part of `deploy` that imports torch. The graph's outputs over 200 ticks are recorded from torch, so that a
machine without torch can check parity too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.bundle import PARITY_TICKS, ParityRecording, make_contract, write_bundle
from policies.bundle import Bundle
from policies.onnx_dreams import PlannedDreams
from robonav.config import from_mapping, package_versions
from robonav.imagination.agent import Agent, AgentState
from robonav.learning.checkpoint import Checkpoint
from robonav.planning.situation import SituationConfig
from robonav.ssm.pattern import describe_pattern
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

OPSET = 20  # read by onnxruntime 1.23, the newest that JetPack 6 runs
NORMALISATION = "physical units go in (metres, rad, m/s, rad/s); the graph normalises inside"
Arrays = dict[str, NDArray[Any]]


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


def read_by(agent: Agent, spec: RobotSpec) -> tuple[str, ...]:
    """The arrays of `PolicyInput` that an agent reads."""
    return agent.config.model.encoder.input_names(spec)


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


@torch.no_grad()
def record(agent: Agent, spec: RobotSpec, ticks: Iterable[Mapping[str, NDArray[Any]]]) -> ParityRecording:
    """Runs torch over the ticks (PolicyInput arrays plus ``reset``), each with the action before it, state carried."""
    state, action = agent.initial_state(1), torch.zeros(1, ACTION_SIZE)
    rows: list[Arrays] = []
    for tick in ticks:
        inputs = {name: torch.from_numpy(np.asarray(tick[name]))[None] for name in read_by(agent, spec)}
        reset = torch.tensor([float(tick["reset"])])
        step = agent.step(state, inputs, action, reset)
        row = {name: tensor.numpy() for name, tensor in inputs.items()}
        row |= {"action_prev": action.numpy(), "reset": reset.numpy()}
        row |= {"out.action": step.action.numpy(), "out.value": step.value.numpy()}
        row["out.next.memory"] = step.state.world.memory.numpy()
        rows.append(row)
        state, action = step.state, step.action
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    outputs = {name.removeprefix("out."): values for name, values in stacked.items() if name.startswith("out.")}
    return ParityRecording({k: v for k, v in stacked.items() if not k.startswith("out.")}, outputs)


def synthetic_ticks(spec: RobotSpec, count: int = PARITY_TICKS, seed: int = 0) -> list[Arrays]:
    """Plausible inputs that need no simulator: smooth random scans, blocky maps, a goal that comes nearer."""
    rng = np.random.default_rng(seed)
    shapes = policy_input_shapes(spec)
    ticks = []
    drift = rng.normal(size=shapes["scan_m"])
    for t in range(count):
        drift = 0.95 * drift + 0.3 * rng.normal(size=drift.shape)
        blocks = rng.random((shapes["local_map"][0], 6, 6)) > 0.7
        cells = spec.local_map.cells
        image = np.repeat(np.repeat(blocks, -(-cells // 6), 1), -(-cells // 6), 2)[:, :cells, :cells]
        tick: Arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        tick["scan_m"] = np.clip(2.5 * np.exp(0.5 * drift), 0.1, spec.lidar.range_m).astype(np.float32)
        tick["local_map"] = image.astype(np.uint8) * 255
        tick["robot"] = spec.dynamics
        tick["present"] = (rng.random(shapes["present"]) > 0.05).astype(np.float32)
        tick["reset"] = np.array(t % 67 == 0, np.float32)
        ticks.append(tick)
    return ticks


def export(
    checkpoint: Checkpoint,
    out: str | Path,
    name: str,
    ticks: Iterable[Mapping[str, NDArray[Any]]],
    notes: str = "",
    planner: PlannedDreams | None = None,
) -> Bundle:
    """Exports a checkpoint to the bundle folder `out`.

    Args:
        checkpoint: from `robonav.learning.checkpoint.load_agent`.
        out: folder; a bundle that is there already is replaced whole.
        name: of the bundle.
        ticks: PARITY_TICKS ticks of PolicyInput arrays plus ``reset``, best from real episodes.
        notes: Markdown that is added to the model card: data, results with intervals.
        planner: sizes of the planner's dreams, exported too if given.

    Raises:
        BundleError: the graph and torch differ by more than the tolerance; nothing is written then.
    """
    agent, spec = checkpoint.agent, checkpoint.spec
    situation = from_mapping(SituationConfig, checkpoint.info.get("situation", {}), "situation in the checkpoint")
    states = {key: tuple(tensor.shape) for key, tensor in agent.initial_state(1).tensors()}
    reads, versions = read_by(agent, spec), package_versions()
    contract = make_contract(name, spec, states, situation, reads=reads, normalisation=NORMALISATION, versions=versions)
    recording = record(agent, spec, ticks)
    card, graph = model_card(name, checkpoint, notes), to_onnx(agent, spec)
    dreams = None
    if planner is not None:
        from deploy.export_dreams import dreams_to_onnx

        dreams = dreams_to_onnx(agent, planner)
    return write_bundle(out, graph, contract, recording, card, dreams=dreams)


def model_card(name: str, checkpoint: Checkpoint, notes: str) -> str:
    """Markdown: what the model is, how it came to be, and what it is not for."""
    info, config = checkpoint.info, checkpoint.agent.config
    parameters = sum(p.numel() for n, p in checkpoint.agent.named_parameters() if "slow_critic" not in n)
    model, backbone, spec = config.model, config.model.backbone, checkpoint.spec
    latents = f"{model.groups} x {model.classes} categorical latents ({model.sampled_groups} of them sampled)"
    kinds = describe_pattern(backbone.pattern)
    memory = f"backbone `{backbone.pattern}` ({kinds}), d_model {backbone.d_model}, d_state {backbone.d_state}"
    scenes = ", ".join(f"`{scene}`" for scene in dict.fromkeys(info.get("scenes", []))) or "unknown"
    budget = f"{info.get('updates', '?')} updates on {info.get('env_steps', '?')} environment steps"
    return f"""# {name}

A navigator for the robot `{spec.name}`: lidar ({spec.lidar.beams} beams), local map, route waypoints and body state in,
a velocity command out, at {spec.rate_hz:g} Hz.

| | |
|---|---|
| world model | {latents}, {memory} |
| parameters | {parameters / 1e6:.2f} M, with critic and decoders; the graph holds what the actor needs |
| training | {budget} in {info.get("minutes", "?")} minutes, seed {info.get("seed", "?")} |
| data | simulated scenes only ({scenes}, see `configs/scenes`); no recorded human or robot data |
| graph | ONNX opset {OPSET}, fp32, batch 1, explicit state |

{notes.strip()}

## Not for
People and other things that move, stairs, ramps, drops: it has seen static scenes only. Run it behind the governor.
"""
