"""The layers that are compared, at equal width and, where the family allows it, equal parameters (about 0.4 M)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from robonav.errors import ConfigError, explain, nearest
from robonav.ssm.layers.attention import Attention
from robonav.ssm.layers.gated_delta import GatedDeltaNet
from robonav.ssm.layers.gru import GRU
from robonav.ssm.layers.mamba1 import Mamba1
from robonav.ssm.layers.mamba2 import Mamba2
from robonav.ssm.layers.mamba3 import Mamba3
from robonav.ssm.layers.memoryless import Memoryless
from robonav.ssm.layers.parallel import ParallelBlock
from robonav.ssm.layers.s4d import S4D
from robonav.ssm.state import SequenceLayer

D_MODEL = 256
WINDOW = 64
HEADS = 4


def _hybrid(d_model: int) -> SequenceLayer:
    return ParallelBlock(Attention(d_model, HEADS, WINDOW), Mamba3(d_model, d_state=16, expand=1.0))


FACTORIES: dict[str, Callable[[int], SequenceLayer]] = {
    "mamba3": lambda d: Mamba3(d, d_state=8, expand=2.0),
    "mamba3_n4": lambda d: Mamba3(d, d_state=4, expand=2.0),
    "mamba3_n16": lambda d: Mamba3(d, d_state=16, expand=2.0),
    "mamba3_n64": lambda d: Mamba3(d, d_state=64, expand=2.0),
    "mamba3_mimo": lambda d: Mamba3(d, d_state=8, expand=2.0, rank=2),
    "mamba2": lambda d: Mamba2(d, d_state=16, expand=2),
    "mamba1": lambda d: Mamba1(d, d_state=8, expand=2),
    "s4d": lambda d: S4D(d, d_state=16),
    "gated_delta": lambda d: GatedDeltaNet(d),
    "attention": lambda d: Attention(d, HEADS, WINDOW),
    "attention_rope": lambda d: Attention(d, HEADS, WINDOW, rope=True),
    "hybrid": _hybrid,
    "gru": lambda d: GRU(d),
    "memoryless": lambda d: Memoryless(d),
}
SSM_LAYERS = ("mamba3", "mamba2", "mamba1", "s4d", "gated_delta", "gru")


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> tuple[str, ...]:
    """The names, all known.

    Raises:
        ConfigError: names the first unknown one and its nearest neighbour.
    """
    known, names = tuple(known), tuple(names)
    for name in names:
        if name not in known:
            raise ConfigError(explain(what, f"one of {', '.join(known)}", name, nearest(name, known)))
    return names


def make(name: str, seed: int = 0, d_model: int = D_MODEL) -> torch.nn.Module:
    """The layer of that name with weights from the seed."""
    torch.manual_seed(seed)
    layer = FACTORIES[name](d_model)
    assert isinstance(layer, torch.nn.Module)
    return layer
