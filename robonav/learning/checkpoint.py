"""Checkpoints in safetensors: the weights that are evaluated and exported, and the training state that resumes exactly.

A run folder holds ``checkpoint.safetensors`` (averaged weights, with the agent's config, the robot and the budget as
metadata) and ``resume.safetensors`` (everything else that the next update depends on), and ``best.safetensors``, of the
form of the first, where development scenes are evaluated. All are replaced whole. A bundle holds what it was exported
from in a file of the first's form too (`weights_bytes`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from robonav.config import from_mapping, to_mapping
from robonav.errors import CheckpointError, explain
from robonav.files import atomic_path
from robonav.imagination.agent import Agent, AgentConfig
from robonav.planning.situation import SituationConfig
from robonav.types import RobotSpec

FORMAT = "robonav-checkpoint-1"
WEIGHTS_FILE = "checkpoint.safetensors"
RESUME_FILE = "resume.safetensors"
BEST_FILE = "best.safetensors"
NOT_KNOWN = "not known"  # of what a checkpoint could tell


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A trained agent, and what is known about how it came to be."""

    agent: Agent
    spec: RobotSpec
    info: dict[str, Any]

    @property
    def situation(self) -> SituationConfig:
        """What makes the agent's inputs, as in its training.

        Raises:
            ConfigError: what the file says of it does not fit.
        """
        return from_mapping(SituationConfig, self.info.get("situation", {}), "situation in the checkpoint")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Writes tensors and JSON-able metadata, whole or not at all."""
    kept = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as aside:
        try:
            save_file(kept, str(aside), metadata=_texts(metadata))
        except SafetensorError as error:
            raise CheckpointError(f"{path}: cannot write ({error}); free some space") from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata.

    Raises:
        CheckpointError: missing, damaged, or no checkpoint of ours.
    """
    with _opened(path) as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, _metadata(stream, path)  # noqa: SIM118


def load_metadata(path: Path) -> dict[str, Any]:
    """Metadata alone, without reading the tensors.

    Raises:
        CheckpointError: as `load_tensors`.
    """
    with _opened(path) as stream:
        return _metadata(stream, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(explain(str(path), "a checkpoint", "no such file", "train with --out, or check the path"))
    try:
        with safe_open(str(path), framework="pt") as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}); use another one") from None


def randomisation_of(collect: Mapping[str, Any]) -> str:
    """The preset under which a run's steps were gathered, or some of them, by its config; none tells nothing."""
    if not collect:
        return NOT_KNOWN
    return str(collect.get("randomisation", "sim2real")) if collect.get("imperfect") else "off"


def _texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What `_metadata` reads."""
    return {"format": FORMAT, **{name: json.dumps(value) for name, value in metadata.items()}}


def _metadata(stream: Any, path: Path) -> dict[str, Any]:
    found = dict(stream.metadata() or {})
    if found.pop("format", None) != FORMAT:
        raise CheckpointError(explain(str(path), f"format {FORMAT}", "another format", "train again"))
    return {name: json.loads(value) for name, value in found.items()}


def save_agent(path: Path, weights: Mapping[str, Tensor], config: AgentConfig, spec: RobotSpec, info: Any) -> None:
    """Writes an agent's weights with what is needed to rebuild it."""
    save_tensors(path, weights, _about(config, spec, info))


def weights_bytes(checkpoint: Checkpoint, halves_from: float = math.inf) -> bytes:
    """A checkpoint as the bytes of a file that `load_agent` reads; matrices of so many entries or more as halves."""
    weights = {
        name: tensor.half() if tensor.ndim > 1 and tensor.numel() >= halves_from else tensor
        for name, tensor in checkpoint.agent.state_dict().items()
    }
    about = _about(checkpoint.agent.config, checkpoint.spec, checkpoint.info)
    return _in_order(save({n: t.contiguous() for n, t in weights.items()}, metadata=_texts(about)))


def _about(config: AgentConfig, spec: RobotSpec, info: Any) -> dict[str, Any]:
    """What it takes to rebuild an agent, besides its weights."""
    return {"agent": to_mapping(config), "robot": to_mapping(spec), "info": info}


def _in_order(file: bytes) -> bytes:
    """The same file with its header's keys in order: the library's own order is another one each time."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def checkpoint_path(path: str | Path) -> Path:
    """The weights' file of a run folder, or the file itself."""
    path = Path(path)
    return path / WEIGHTS_FILE if path.is_dir() else path


def load_agent(path: str | Path) -> Checkpoint:
    """Rebuilds the agent of a run folder or a checkpoint file, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or written with another configuration.
    """
    file = checkpoint_path(path)
    return rebuild_agent(*load_tensors(file), file)


def rebuild_agent(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], file: Path) -> Checkpoint:
    """`load_agent` of what was read from `file` already."""
    if "agent" not in metadata or "robot" not in metadata:
        raise CheckpointError(explain(str(file), "an agent's weights", "another kind of checkpoint"))
    spec = from_mapping(RobotSpec, metadata["robot"], f"{file}: robot")
    agent = Agent(from_mapping(AgentConfig, metadata["agent"], f"{file}: agent"), spec)
    load_weights(agent, tensors, str(file))
    return Checkpoint(agent.eval().requires_grad_(False), spec, metadata.get("info", {}))


def load_weights(agent: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads weights strictly; the first name or shape that does not fit is named.

    Raises:
        CheckpointError: the weights belong to another configuration.
    """
    for name, own in agent.state_dict().items():
        got = tensors.get(name)
        if got is None or got.shape != own.shape:
            shown = "nothing" if got is None else tuple(got.shape)
            raise CheckpointError(
                explain(f"{where}: {name}", tuple(own.shape), shown, "use the config it was trained with")
            )
    agent.load_state_dict({name: tensors[name] for name in agent.state_dict()})


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimiser's moments as flat names."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{i}.{k}": torch.as_tensor(v) for i, entry in state.items() for k, v in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{prefix}."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
