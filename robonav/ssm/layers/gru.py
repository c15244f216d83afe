"""The gated recurrent unit (Cho et al., arXiv 1406.1078, as in torch) behind a sequence layer's three verbs.

r, u = sigmoid(W_r x + U_r h + b_r), sigmoid(W_u x + U_u h + b_u)
n = tanh(W_n x + b_n + r (U_n h + c_n))
h' = (1 - u) n + u h
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.state import check_scan, check_step, state_dtype

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")  # torch's names and order


class GRUState(NamedTuple):
    """What the layer carries from step to step."""

    hidden: Tensor  # (B, E)


class GRU(nn.Module):
    """GRU layer around the parameters of `torch.nn.GRU`, at the name `gru`.

    Args:
        d_model: width D of input and output.
        hidden: width E of the state; D where it is left out, and then the state itself is the output. Otherwise the
            output is a projection of it.
    """

    def __init__(self, d_model: int, hidden: int | None = None) -> None:
        super().__init__()
        self.d_model, self.hidden = d_model, d_model if hidden is None else hidden
        for name, size in (("d_model", d_model), ("hidden", self.hidden)):
            if size < 1:
                raise ConfigError(explain(f"GRU.{name}", "at least 1", size))
        self.gru = nn.GRU(d_model, self.hidden, batch_first=True)
        self.out_proj = nn.Identity() if self.hidden == d_model else nn.Linear(self.hidden, d_model, bias=False)

    def initial_state(self, batch: int) -> GRUState:
        """Zeros, on the layer's device."""
        _, weight, *_ = self._weights()
        return GRUState(weight.new_zeros(batch, self.hidden, dtype=state_dtype(weight)))

    def step(self, x: Tensor, state: GRUState, reset: Tensor | None = None) -> tuple[Tensor, GRUState]:
        """x (B, D) to y (B, D) and the next state; `reset` (B,) drops the past where it is 1."""
        reset = check_step(x, self.d_model, state, reset)
        weight_x, weight_h, bias_x, bias_h = self._weights()
        dtype = state_dtype(weight_h)
        before = state.hidden.to(dtype) * (1 - reset)[:, None].to(dtype)
        drive = F.linear(x, weight_x, bias_x).to(dtype)  # (B, 3E)
        back = F.linear(before.to(weight_h.dtype), weight_h, bias_h).to(dtype)
        (r_x, u_x, n_x), (r_h, u_h, n_h) = drive.chunk(3, dim=-1), back.chunk(3, dim=-1)
        r, u = torch.sigmoid(r_x + r_h), torch.sigmoid(u_x + u_h)
        after = (1 - u) * torch.tanh(n_x + r * n_h) + u * before
        return self._output(after), GRUState(after)

    def scan(
        self, x: Tensor, state: GRUState, reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, GRUState]:
        """A whole sequence; equals T calls of `step`.

        torch's own GRU runs between the steps at which some row resets: in one call where there are none.

        Args:
            x: (B, T, D); reset: (B, T), 1 where the past is dropped before that step.
            wanted: (B, K) steps after which the state is asked for; by default the last one.

        Returns:
            y (B, T, D), and the states (B * K, E) after the wanted steps.
        """
        reset, wanted = check_scan(x, self.d_model, state, reset, wanted)
        dtype = state_dtype(self._weights()[1])
        weights = [w.to(dtype) for w in self._weights()]
        cuts = torch.nonzero(reset.any(dim=0)).flatten().tolist()
        edges = sorted({0, *cuts, x.shape[1]})
        hidden, pieces = state.hidden.to(dtype)[None], []
        with torch.autocast(device_type=x.device.type, enabled=False):
            for begin, end in pairwise(edges):
                hidden = hidden * (1 - reset[:, begin])[:, None].to(dtype)
                piece = x[:, begin:end].to(dtype)
                y, hidden = torch.gru(piece, hidden, weights, True, 1, 0.0, self.training, False, True)
                pieces.append(y)
        every = torch.cat(pieces, dim=1)  # (B, T, E), output and state at once
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        return self._output(every), GRUState(every[rows, wanted].flatten(0, 1))

    def _weights(self) -> list[Tensor]:
        """Input and hidden weights, input and hidden biases."""
        return [cast("Tensor", getattr(self.gru, name)) for name in WEIGHTS]

    def _output(self, hidden: Tensor) -> Tensor:
        return self.out_proj(hidden.to(self._weights()[1].dtype))
