"""Causal attention over a window, with a bounded cache as its state.

A step sees itself and up to `window` inputs before it, back to the last reset: the cache holds `window` keys and values
and never grows. Keys are kept unrotated. A rotary embedding (RoFormer, arXiv 2104.09864) turns query and keys by their
place in the window, since only differences of places count: a day of steps loses no precision.

Shape letters: B batch, T time, W window, H heads, G heads of keys and values, E head size, K wanted states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.state import check_scan, check_step, state_dtype

ROPE_BASE = 10_000.0
BLOCK = 64  # least number of steps that are attended to in one product


class AttentionState(NamedTuple):
    """The last W inputs' keys and values, oldest first; those before the last reset are marked empty and not read."""

    keys: Tensor  # (B, W, G, E)
    values: Tensor  # (B, W, G, E)
    filled: Tensor  # (B, W) 1 where a place holds an input since the last reset


def rotate_places(x: Tensor, base: float, first: int = 0) -> Tensor:
    """Rotates pairs (i, i + E / 2) of x (..., N, H, E), at places p from `first` on, by p * base^(-2i / E)."""
    places, size = x.shape[-3], x.shape[-1]
    order = torch.arange(size // 2, device=x.device, dtype=x.dtype)
    place = torch.arange(first, first + places, device=x.device, dtype=x.dtype)
    angle = place[:, None, None] * base ** (-2 * order / size)  # (N, 1, E / 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b = x.chunk(2, dim=-1)
    return x * torch.cat([cos, cos], dim=-1) + torch.cat([b, a], dim=-1) * torch.cat([-sin, sin], dim=-1)


class Attention(nn.Module):
    """Causal multi-head attention over a window.

    Args:
        d_model: width D of input and output; heads must divide it.
        heads: query heads H.
        window: inputs W before a step that it sees, besides itself.
        rope: rotates queries and keys by their place; without it a step sees a set, not an order.
        kv_heads: heads of keys and values G; must divide H, by default H.
        rope_base: longest wavelength of the rotation, over 2 pi.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        window: int = 64,
        rope: bool = False,
        kv_heads: int | None = None,
        rope_base: float = ROPE_BASE,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or d_model % heads:
            raise ConfigError(explain("attention heads", f"a divisor of d_model = {d_model}", heads))
        if kv_heads < 1 or heads % kv_heads:
            raise ConfigError(explain("attention kv_heads", f"a divisor of heads = {heads}", kv_heads))
        if window < 1:
            raise ConfigError(explain("attention window", "at least 1", window))
        self.d_model, self.heads, self.kv_heads, self.window = d_model, heads, kv_heads, window
        self.headdim, self.rope, self.rope_base = d_model // heads, rope, rope_base
        if rope and self.headdim % 2:
            raise ConfigError(explain("attention head size with rope", "an even number", self.headdim))
        self.in_proj = nn.Linear(d_model, (heads + 2 * kv_heads) * self.headdim, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def initial_state(self, batch: int) -> AttentionState:
        """An empty cache, on the layer's device."""
        weight = self.in_proj.weight
        cache = weight.new_zeros(batch, self.window, self.kv_heads, self.headdim, dtype=state_dtype(weight))
        return AttentionState(cache, torch.zeros_like(cache), cache[:, :, 0, 0].clone())

    def step(self, x: Tensor, state: AttentionState, reset: Tensor | None = None) -> tuple[Tensor, AttentionState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        reset = check_step(x, self.d_model, state, reset)
        query, key, value = self._project(x[:, None])
        with torch.autocast(device_type=x.device.type, enabled=False):
            filled = state.filled.to(key.dtype) * (1 - reset)[:, None].to(key.dtype)
            keys = torch.cat([state.keys, key], dim=1)  # (B, W + 1, G, E)
            values = torch.cat([state.values, value], dim=1)
            filled = torch.cat([filled, torch.ones_like(filled[:, :1])], dim=1)
            y = self._attend(query, keys, values, filled[:, None] > 0)[:, 0]
        return self._output(y), AttentionState(keys[:, 1:], values[:, 1:], filled[:, 1:])

    def scan(
        self, x: Tensor, state: AttentionState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """A whole sequence as masked products of blocks of steps; equals T calls of `step`, linear in T.

        Args:
            x: (B, T, D); reset: (B, T), 1 where the past is dropped before that step.
            wanted: (B, K) steps after which the state is asked for; by default the last one.

        Returns:
            y (B, T, D), and the states (B * K, ...) after the wanted steps.
        """
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        batch, length = x.shape[:2]
        query, key, value = self._project(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            filled = state.filled.to(key.dtype)
            keys = torch.cat([state.keys, key], dim=1)  # (B, W + T, G, E)
            values = torch.cat([state.values, value], dim=1)
            segment = torch.cumsum(reset, dim=1)  # (B, T); the cache belongs to segment 0, its empty places to none
            segments = torch.cat([filled.to(segment.dtype) - 1, segment], dim=1)
            y = self._attend_blocks(query, keys, values, segments)
            slot = wanted[..., None] + torch.arange(1, self.window + 1, device=x.device)  # (B, K, W)
            rows = torch.arange(batch, device=x.device)[:, None]
            now = segment[rows, wanted]
            same = (segments[rows[..., None], slot] == now[..., None]).to(key.dtype)
            held = (part[rows[..., None], slot] for part in (keys, values))
            states = AttentionState(*(s.flatten(0, 1) for s in (*held, same)))
        return self._output(y[:, :length]), states

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) to query (B, T, H, E), key and value (B, T, G, E), in the state's dtype."""
        both = self.in_proj(x).to(state_dtype(self.in_proj.weight)).unflatten(-1, (-1, self.headdim))
        query, key, value = both.split([self.heads, self.kv_heads, self.kv_heads], dim=-2)
        return query, key, value

    def _attend_blocks(self, query: Tensor, keys: Tensor, values: Tensor, segments: Tensor) -> Tensor:
        """Steps in blocks of C, each block with the W + C inputs that it may see: y (B, T rounded up, D)."""
        (batch, length), window = query.shape[:2], self.window
        block = min(length, max(BLOCK, window))
        short, device = -length % block, query.device
        query = F.pad(query, (0, 0, 0, 0, 0, short)).unflatten(1, (-1, block)).flatten(0, 1)  # (B * N, C, H, E)

        def windows(x: Tensor) -> Tensor:  # (B, W + T, ...) -> (B * N, W + C, ...)
            padded = F.pad(x, (*[0] * (2 * (x.dim() - 2)), 0, short))
            return padded.unfold(1, window + block, block).movedim(-1, 2).flatten(0, 1)

        near = windows(segments)  # (B * N, W + C); padded steps are behind all others and see themselves
        ahead = torch.arange(window + block, device=device) - torch.arange(block, device=device)[:, None]
        reach = (ahead >= 0) & (ahead <= window)  # (C, W + C)
        seen = reach & (near[:, None] == near[:, window:, None])
        y = self._attend(query, windows(keys), windows(values), seen)
        return y.unflatten(0, (batch, -1)).flatten(1, 2)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """Query (B, C, H, E) at the last C places of keys (B, W + C, G, E), where `seen` (B, C, W + C): y (B, C, D)."""
        if self.rope:
            keys = rotate_places(keys, self.rope_base)
            query = rotate_places(query, self.rope_base, first=self.window)
        sharing = self.heads // self.kv_heads  # these many query heads stand as more queries of one head
        q = query.unflatten(2, (self.kv_heads, sharing)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, G, H / G * C, E)
        mask = seen.repeat(1, sharing, 1)[:, None]
        y = F.scaled_dot_product_attention(q, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask)
        return y.unflatten(2, (sharing, -1)).permute(0, 3, 1, 2, 4).flatten(2)

    def _output(self, y: Tensor) -> Tensor:
        return self.out_proj(y.to(self.in_proj.weight.dtype))


class SharedAttention(nn.Module):
    """Zamba's shared attention (arXiv 2405.16712): one set of weights for several places of a stack.

    It reads the residual stream beside the stack's input, projected down. Each place has its own state, norm and
    output projection, which the stack holds.

    Args:
        d_model: width D of the stream; input is (..., 2D), output (..., D).
        attention: the attention that reads the projected input.
    """

    def __init__(self, d_model: int, attention: Attention) -> None:
        super().__init__()
        self.d_model = d_model
        self.join = nn.Linear(2 * d_model, d_model, bias=False)
        self.attention = attention

    def initial_state(self, batch: int) -> AttentionState:
        """An empty cache, for one place."""
        return self.attention.initial_state(batch)

    def step(self, x: Tensor, state: AttentionState, reset: Tensor | None = None) -> tuple[Tensor, AttentionState]:
        """x (B, 2D) to y (B, D) and the place's next state."""
        return self.attention.step(self.join(x), state, reset)

    def scan(
        self, x: Tensor, state: AttentionState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """x (B, T, 2D) to y (B, T, D), and the place's states after the wanted steps."""
        return self.attention.scan(self.join(x), state, reset, wanted)
