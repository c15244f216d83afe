"""Where and how precisely the learner computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robonav.errors import ConfigError, explain
from robonav.imagination.agent import Agent

DeviceName = Literal["cpu", "cuda", "auto"]
Precision = Literal["float32", "bfloat16"]


def device_of(name: DeviceName) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: there is no CUDA device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(explain("device", "a CUDA device for 'cuda'", "none", "use 'cpu' or 'auto'"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Matrix products in bfloat16, or nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def full_precision_outputs(agent: Agent) -> None:
    """Makes what becomes logits, means and log ranges float32 again under autocast; weights are not touched.

    Softmax and logarithm of bfloat16 would be wrong by up to a percent, which is more than the KL's gradient bears.
    """
    model, behavior = agent.model, agent.behavior
    heads: list[nn.Module] = [model.to_posterior, model.prior_net, model.reward.net, model.proceed]
    heads += [behavior.actor.net, behavior.critic.net, behavior.slow_critic.net]
    heads += [] if model.prior_heads is None else list(model.prior_heads.nets)
    heads += [] if model.decoder is None else list(model.decoder.children())
    heads += [] if model.objective is None else list(model.objective.children())
    for head in heads:
        head.register_forward_hook(_to_float32)


def _to_float32(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output.float()


def random_state(device: torch.device) -> dict[str, Tensor]:
    """torch's random state, by name."""
    cuda = {"cuda_rng": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"rng": torch.get_rng_state(), **cuda}


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Inverse of `random_state`; of a run from another device, what there is."""
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"], device)
