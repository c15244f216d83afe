"""The layers' way to the fused step: in PyTorch's form of the kernel it gives what the layer's own step gives."""

from __future__ import annotations

import pytest
import torch

from robonav.ssm.layers.mamba2 import Mamba2
from robonav.ssm.layers.mamba3 import Mamba3
from robonav.ssm.recurrences.ssd import ssd_step
from robonav.ssm.state import map_state
from tests.ssm.layer_checks import assert_near


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rope_fraction": 1.0, "a_form": "softplus"},
        {"rope_fraction": 0.0},
        {"out_norm": True},
        {"rank": 2},
        {"rank": 2, "out_norm": True, "ngroups": 2},
    ],
    ids=str,
)
def test_mamba3(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = Mamba3(32, d_state=8, headdim=16, **options).double()  # type: ignore[arg-type]
    x, reset = torch.randn(5, 32, dtype=torch.float64), torch.tensor([0, 1, 0, 0, 1], dtype=torch.float64)
    state = map_state(torch.Tensor.detach, layer.scan(torch.randn(5, 4, 32).double(), layer.initial_state(5))[1])
    want = layer.step(x, state, reset)
    gated, got = layer._fused_step(layer._project(x), state, reset)
    assert_near((layer.out_proj(gated), got), want, 1e-10)


@pytest.mark.parametrize(
    "options",
    [{}, {"rmsnorm": False}, {"norm_before_gate": True, "ngroups": 2}, {"D_has_hdim": True, "dt_limit": (0.01, 0.05)}],
    ids=str,
)
def test_mamba2(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = Mamba2(32, d_state=8, headdim=16, **options).double()  # type: ignore[arg-type]
    reset = torch.tensor([0, 1, 0, 0, 1], dtype=torch.float64)
    mixed, dt = torch.randn(5, layer.channels).double(), torch.randn(5, layer.heads).double()
    z, hidden = torch.randn(5, layer.inner).double(), layer.initial_state(5).hidden + 1
    inputs, v = layer._inputs(mixed, dt)
    want_y, want_hidden = ssd_step(hidden, inputs, reset)
    want = layer._gated(layer._skipped(want_y.squeeze(-3), v), z)
    assert_near(layer._fused_step(mixed, dt, z, hidden, reset), (want, want_hidden), 1e-10)
