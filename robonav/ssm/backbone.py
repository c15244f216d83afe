"""A stack of sequence layers chosen by a pattern string (`robonav.ssm.pattern`), one letter a layer.

Each letter stands in a pre-norm residual block. Where the pattern holds no ``-``, a pre-norm SwiGLU block follows every
layer (unless `mlp_ratio` is 0); with ``-``, such blocks stand only there.

    M  Mamba-3                    A  attention over a window, without position embedding
    R  Mamba-3 MIMO               P  the same with rotary embedding
    2  Mamba-2                    Z  Zamba's shared attention
    1  Mamba-1                    H  attention and an SSM side by side (Falcon-H1)
    S  S4D                        G  GRU
    D  gated DeltaNet             I  memoryless

All Z of a stack share one attention, and one SwiGLU where it stands right behind a Z; each place has its own state,
norms and output projection. Attention belongs mid-depth, between SSM layers that give it the order of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robonav.config import find_config, load_config, require_at_least
from robonav.errors import ConfigError, ShapeError, explain
from robonav.ssm.layers.attention import ROPE_BASE, Attention, SharedAttention
from robonav.ssm.layers.gated_delta import GatedDeltaNet
from robonav.ssm.layers.gru import GRU
from robonav.ssm.layers.mamba1 import Mamba1
from robonav.ssm.layers.mamba2 import Mamba2
from robonav.ssm.layers.mamba3 import Mamba3
from robonav.ssm.layers.memoryless import Memoryless, SwiGLU
from robonav.ssm.layers.parallel import ParallelBlock
from robonav.ssm.layers.s4d import S4D
from robonav.ssm.pattern import MLP, SHARED, expand_pattern, with_mlps
from robonav.ssm.state import SequenceLayer, State, check_scan, check_step, select_state

__all__ = ["Backbone", "BackboneConfig", "SSMState", "SwiGLU", "backbone_preset", "make_layer", "select_state"]

SSMState = tuple[State, ...]  # one a layer; MLPs have none


@dataclass(frozen=True, slots=True)
class BackboneConfig:
    """Layers and sizes of the memory.

    In a training preset either the fields, or a preset of configs/backbones by name, or both:

        [agent.model.backbone]
        preset = "jamba"
        d_model = 128
    """

    pattern: str = "MM"
    """One letter a layer; ``(MMMA)*2`` repeats (see `robonav.ssm.pattern`)."""
    d_model: int = 192
    """Width D."""
    d_state: int = 16
    """State size N of a head."""
    expand: float = 1.0
    """Inner width of a layer over D."""
    headdim: int = 48
    """Head size P of M, R, 2 and D."""
    mlp_ratio: float = 1.0
    """Width of the SwiGLU block over D; 0 leaves it out."""
    rank: int = 4
    """Rank of R, Mamba-3 MIMO."""
    rope_fraction: float = 0.5
    """Share of the state that rotates in M and R."""
    ngroups: int = 1
    """Groups of heads that share B and C, in M, R and 2."""
    chunk: int = 64
    """Longest stretch that is one matrix product in a scan of M, R, 2 and D."""
    window: int = 64
    """Inputs before a step that attention sees besides it: the size of its cache."""
    attention_heads: int = 4
    """Heads of A, P, Z and H."""
    kv_heads: int | None = None
    """Heads of their keys and values, by default as many."""
    rope_base: float = ROPE_BASE
    """Longest wavelength of attention's rotary embedding, over 2 pi."""
    hybrid_ssm: Literal["M", "R", "2", "1", "S", "D"] = "M"
    """Letter of the layer beside attention in H."""
    hybrid_rope: bool = False
    """Whether attention in H has a rotary embedding."""
    preset: str | None = None
    """Preset of configs/backbones that gives every field which is at its default here. It is replaced by what it
    stands for, so that a checkpoint needs no preset."""

    def __post_init__(self) -> None:
        """Fills in the preset and checks the pattern and the sizes.

        Raises:
            ConfigError: with the name of the value that does not fit.
        """
        if self.preset is not None:
            named = backbone_preset(self.preset)
            for field in fields(self):
                if getattr(self, field.name) == field.default or field.name == "preset":
                    object.__setattr__(self, field.name, getattr(named, field.name))
        sizes = ("d_model", "d_state", "headdim", "rank", "ngroups", "chunk", "window", "attention_heads")
        require_at_least(self, {**dict.fromkeys(sizes, 1), "mlp_ratio": 0, "rope_fraction": 0, "rope_base": 1})
        letters = expand_pattern(self.pattern)
        used = set(letters) | ({self.hybrid_ssm} if "H" in letters else set())
        if self.inner < 1:
            raise ConfigError(explain("backbone.expand", "expand * d_model of at least 1", self.expand))
        if used & set("MR2D") and self.inner % self.headdim:
            expected = f"a divisor of expand * d_model = {self.inner}"
            raise ConfigError(explain("backbone.headdim", expected, self.headdim))
        if used & set("MR2") and self.inner // self.headdim % self.ngroups:
            expected = f"a divisor of the {self.inner // self.headdim} heads"
            raise ConfigError(explain("backbone.ngroups", expected, self.ngroups))
        if used & set("APZH"):
            self._check_attention(rotary="P" in used or ("H" in used and self.hybrid_rope))
        if MLP in letters and self.mlp_width < 1:
            raise ConfigError(explain("backbone.mlp_ratio", f"above 0 where the pattern holds {MLP}", self.mlp_ratio))

    def _check_attention(self, rotary: bool) -> None:
        heads = self.attention_heads
        if self.d_model % heads:
            raise ConfigError(explain("backbone.attention_heads", f"a divisor of d_model = {self.d_model}", heads))
        if self.kv_heads is not None and (self.kv_heads < 1 or heads % self.kv_heads):
            raise ConfigError(explain("backbone.kv_heads", f"a divisor of attention_heads = {heads}", self.kv_heads))
        if rotary and self.d_model // heads % 2:
            expected = "an even d_model / attention_heads for the rotary embedding"
            raise ConfigError(explain("backbone.attention_heads", expected, self.d_model // heads))

    @property
    def inner(self) -> int:
        """Inner width of a layer."""
        return int(self.expand * self.d_model)

    @property
    def mlp_width(self) -> int:
        """Inner width of the SwiGLU blocks."""
        return int(self.mlp_ratio * self.d_model)


def backbone_preset(name: str) -> BackboneConfig:
    """The preset of that name in configs/backbones, or a TOML file by its path.

    Raises:
        ConfigError: there is none (the presets are listed), or it does not fit.
    """
    return load_config(BackboneConfig, find_config("backbones", name))


def make_layer(letter: str, config: BackboneConfig) -> nn.Module:
    """The layer of a letter (but Z and ``-``) in the config's sizes, a `SequenceLayer`."""
    return _MAKERS[letter](config)


def _mamba3(c: BackboneConfig, mimo: bool = False) -> nn.Module:
    rank = c.rank if mimo else 1
    turn, groups = c.rope_fraction, c.ngroups
    return Mamba3(c.d_model, c.d_state, c.expand, c.headdim, rank, mimo, groups, rope_fraction=turn, chunk=c.chunk)


def _mamba1(c: BackboneConfig) -> nn.Module:
    return Mamba1(c.d_model, d_state=c.d_state, expand=c.expand)


def _s4d(c: BackboneConfig) -> nn.Module:
    return S4D(c.d_model, d_state=c.d_state)


def _mamba2(c: BackboneConfig) -> nn.Module:
    return Mamba2(c.d_model, d_state=c.d_state, expand=c.expand, headdim=c.headdim, ngroups=c.ngroups, chunk=c.chunk)


def _delta(c: BackboneConfig) -> nn.Module:
    return GatedDeltaNet(c.d_model, c.inner // c.headdim, c.headdim, expand_v=1.0, chunk=c.chunk)


def _attention(c: BackboneConfig, rope: bool = False) -> Attention:
    return Attention(c.d_model, c.attention_heads, c.window, rope, c.kv_heads, c.rope_base)


_MAKERS: dict[str, Callable[[BackboneConfig], nn.Module]] = {
    "M": _mamba3,
    "R": lambda c: _mamba3(c, mimo=True),
    "2": _mamba2,
    "1": _mamba1,
    "S": _s4d,
    "D": _delta,
    "A": _attention,
    "P": lambda c: _attention(c, rope=True),
    "H": lambda c: ParallelBlock(_attention(c, c.hybrid_rope), make_layer(c.hybrid_ssm, c)),
    "G": lambda c: GRU(c.d_model),
    "I": lambda c: Memoryless(c.d_model, c.inner),
}


class Backbone(nn.Module):
    """Layers of the pattern with the same three verbs as each layer; output is normalised.

    Parameters: `norms` and `layers` are counted over the layers, `mlp_norms` and `mlps` over the SwiGLU blocks; at a
    Z stands its output projection in `layers`, and what all Z share is `shared` and `shared_mlp`.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        d, width = config.d_model, config.mlp_width
        self.d_model = d
        self.letters = with_mlps(expand_pattern(config.pattern), width > 0)
        layers = self.letters.replace(MLP, "")
        shares = [self.letters[:i].endswith(SHARED) for i, letter in enumerate(self.letters) if letter == MLP]
        self.norms = nn.ModuleList(nn.RMSNorm(2 * d if letter == SHARED else d) for letter in layers)
        self.layers = nn.ModuleList(
            nn.Linear(d, d, bias=False) if letter == SHARED else make_layer(letter, config) for letter in layers
        )
        self.mlp_norms = nn.ModuleList(nn.RMSNorm(d) for _ in shares)
        self.mlps = nn.ModuleList(nn.Identity() if shared else SwiGLU(d, width) for shared in shares)
        self.shared = SharedAttention(d, _attention(config)) if SHARED in layers else None
        self.shared_mlp = SwiGLU(d, width) if any(shares) else None
        self.out_norm = nn.RMSNorm(d)

    def initial_state(self, batch: int) -> SSMState:
        """The state before any input."""
        return tuple(self._layer(i).initial_state(batch) for i in range(len(self.layers)))

    def step(self, x: Tensor, state: SSMState, reset: Tensor | None = None) -> tuple[Tensor, SSMState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        self._check_count(state)
        drop = check_step(x, self.d_model, state, reset)
        return self._run(x, state, lambda layer, u, s: layer.step(u, s, drop))

    def scan(
        self, x: Tensor, state: SSMState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, SSMState]:
        """x (B, T, D) to y (B, T, D) and the last state, or the states (B * K, ...) after the wanted (B, K) steps."""
        self._check_count(state)
        drop, at = check_scan(x, self.d_model, state, reset, wanted)
        return self._run(x, state, lambda layer, u, s: layer.scan(u, s, drop, at))

    def _run(
        self, x: Tensor, state: SSMState, verb: Callable[[SequenceLayer, Tensor, State], tuple[Tensor, State]]
    ) -> tuple[Tensor, SSMState]:
        """The residual blocks in order, each layer through `verb`."""
        given, mlps = x, 0
        after: list[State] = []
        for letter in self.letters:
            if letter == MLP:
                block = self.shared_mlp if isinstance(self.mlps[mlps], nn.Identity) else self.mlps[mlps]
                x = x + cast("SwiGLU", block)(self.mlp_norms[mlps](x))
                mlps += 1
                continue
            i = len(after)
            read = torch.cat([x, given], dim=-1) if letter == SHARED else x
            y, layer_state = verb(self._layer(i), self.norms[i](read), state[i])
            x = x + (self.layers[i](y) if letter == SHARED else y)
            after.append(layer_state)
        return self.out_norm(x), tuple(after)

    def _layer(self, index: int) -> SequenceLayer:
        layer = self.layers[index]
        return cast("SequenceLayer", self.shared if isinstance(layer, nn.Linear) else layer)

    def _check_count(self, state: SSMState) -> None:
        if len(state) != len(self.layers):
            raise ShapeError(explain("state", f"{len(self.layers)} layers' states", len(state)))
