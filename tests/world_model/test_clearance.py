"""The head for clearances: its target beside the planner's footprint, what is known, and that it moves nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import AGENT

from robonav.config import load_robot
from robonav.planning.rollouts import footprint_distance_m
from robonav.types import policy_input_shapes
from robonav.world_model.clearance import EDGES_M, ClearanceHead
from robonav.world_model.model import WorldModel

SPEC = load_robot("a1")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), robot=st.sampled_from(["a1", "spirit40", "vision60"]))
def test_the_clearance_is_the_distance_of_the_planners_footprint(seed: int, robot: str) -> None:
    spec, rng = load_robot(robot), np.random.default_rng(seed)
    scan_m = rng.uniform(0.06, 6.0, spec.lidar.beams).astype(np.float32)
    points = spec.lidar.mount_x_m + scan_m * np.exp(1j * spec.lidar.angles_rad)
    at = np.zeros((1, 1), np.complex64), np.zeros((1, 1), np.float32)
    want = float(footprint_distance_m(spec, *at, points.astype(np.complex64))[0, 0])
    head = ClearanceHead(4, 8, spec.lidar)
    found = head.clearance_m(torch.from_numpy(scan_m), torch.from_numpy(spec.dynamics))
    assert float(found) == pytest.approx(want, abs=1e-5)


def inputs_of(scan_m: torch.Tensor) -> dict[str, torch.Tensor]:
    shape = scan_m.shape[:2]
    return {
        "scan_m": scan_m,
        "robot": torch.from_numpy(SPEC.dynamics).expand(*shape, -1),
        "present": torch.ones(*shape, 4),
    }


def test_a_collision_counts_as_a_touch_and_a_lost_scan_counts_not_at_all() -> None:
    head = ClearanceHead(4, 8, SPEC.lidar)
    scan_m = torch.full((1, 4, SPEC.lidar.beams), 3.0)
    reward, terminal = torch.tensor([[0.0, -1.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    inputs = inputs_of(scan_m)
    inputs["present"][0, 3, 0] = 0.0
    features = torch.randn(1, 4, 4)
    loss = head.loss(features, inputs, reward, terminal)
    log_p = torch.log_softmax(head(features), dim=-1)[0]
    last = len(EDGES_M)  # far from everything
    assert torch.allclose(loss[0], torch.stack([-log_p[0, last], -log_p[1, 0], -log_p[2, last], torch.zeros(())]))
    assert torch.allclose(head.touch(features), log_p.exp()[None, :, :2].sum(-1))


def test_readings_that_are_none_are_not_near() -> None:
    head = ClearanceHead(4, 8, SPEC.lidar)
    scan_m = torch.zeros(SPEC.lidar.beams)
    assert head.clearance_m(scan_m, torch.from_numpy(SPEC.dynamics)) > max(EDGES_M)


def test_it_learns_beside_the_model_and_does_not_move_it() -> None:
    config = replace(AGENT.model, clearance=True)
    torch.manual_seed(0)
    model, plain = WorldModel(config, SPEC), WorldModel(AGENT.model, SPEC)
    plain.load_state_dict({n: v for n, v in model.state_dict().items() if not n.startswith("clearance.")})
    inputs = {name: torch.rand(2, 6, *shape) * 3 for name, shape in policy_input_shapes(SPEC).items()}
    inputs["local_map"] = (inputs["local_map"] > 2).to(torch.uint8) * 255
    inputs["present"] = torch.ones(2, 6, 4)
    first, reward = torch.zeros(2, 6), torch.zeros(2, 6)
    gradients = []
    for one in (model, plain):
        torch.manual_seed(1)
        sequence = one.observe(inputs, torch.zeros(2, 6, 3), first, torch.zeros(2, 1, dtype=torch.long))
        losses = one.loss(inputs, sequence, reward, torch.zeros(2, 6), first)
        sum(losses.values(), torch.zeros(())).backward()
        gradients.append({name: p.grad for name, p in one.named_parameters() if p.grad is not None})
    assert any(name.startswith("clearance.") for name in gradients[0])
    assert set(gradients[1]) == {name for name in gradients[0] if not name.startswith("clearance.")}
    for name, gradient in gradients[1].items():
        assert torch.equal(gradients[0][name], gradient), name
