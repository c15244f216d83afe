"""Taking parameters of the public modules: names and shapes are compared before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robonav.errors import CheckpointError, explain


def load_public(layer: nn.Module, parameters: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copies a public module's state dict into a layer of the same sizes.

    Args:
        layer: whose parameter names are the public module's (Mamba1, Mamba2, Mamba3).
        parameters: state dict; with `prefix` (``backbone.layers.0.mixer.``) only the names under it are looked at.
        prefix: cut off the names.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs; the layer is unchanged then.
    """
    given = {name.removeprefix(prefix): tensor for name, tensor in parameters.items() if name.startswith(prefix)}
    own = dict(layer.named_parameters())
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        got = "; ".join(f"{word} {', '.join(names)}" for word, names in (("no", missing), ("also", unknown)) if names)
        raise CheckpointError(explain(f"parameters of {type(layer).__name__}", ", ".join(sorted(own)), got))
    for name, parameter in own.items():
        if parameter.shape != given[name].shape:
            raise CheckpointError(explain(prefix + name, tuple(parameter.shape), tuple(given[name].shape)))
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(given[name])
