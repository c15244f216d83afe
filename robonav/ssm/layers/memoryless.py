"""SwiGLU, and the layer that remembers nothing: the baseline that shows what a task needs memory for."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from robonav.errors import ConfigError, explain
from robonav.ssm.state import check_scan, check_step


class SwiGLU(nn.Module):
    """(..., D) -> (..., D), down(SiLU(gate x) * up x)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, 2 * width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Memoryless(nn.Module):
    """A SwiGLU behind a sequence layer's three verbs; its state is the empty tuple.

    Args:
        d_model: width D of input and output.
        width: inner width, by default 2 D.
    """

    def __init__(self, d_model: int, width: int | None = None) -> None:
        super().__init__()
        width = 2 * d_model if width is None else width
        for name, size in (("d_model", d_model), ("width", width)):
            if size < 1:
                raise ConfigError(explain(f"Memoryless.{name}", "at least 1", size))
        self.d_model = d_model
        self.mlp = SwiGLU(d_model, width)

    def initial_state(self, batch: int) -> tuple[()]:
        """Nothing."""
        return ()

    def step(self, x: Tensor, state: tuple[()], reset: Tensor | None = None) -> tuple[Tensor, tuple[()]]:
        """x (B, D) to y (B, D)."""
        check_step(x, self.d_model, state, reset)
        return self.mlp(x), ()

    def scan(
        self, x: Tensor, state: tuple[()], reset: Tensor | None = None, wanted: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        """x (B, T, D) to y (B, T, D)."""
        check_scan(x, self.d_model, state, reset, wanted)
        return self.mlp(x), ()
