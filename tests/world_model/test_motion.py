"""What moves, as the model reads it: the nearest moving thing of each sector, and who is asked to rebuild what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robonav.config import load_robot
from robonav.errors import ConfigError
from robonav.types import MODALITIES, policy_input_shapes
from robonav.world_model.encoders import (
    EncoderConfig,
    ObservationDecoder,
    ObservationEncoder,
    motion_vector,
    scan_channels,
)

SPEC = load_robot("a1")
SMALL = EncoderConfig(sector_width=4, vector_width=8, map_width=8, hidden=16, flow=True, motion=True, robot=True)


def inputs(batch: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    out = {k: torch.rand(batch, *s, generator=g) + 0.2 for k, s in policy_input_shapes(SPEC).items()}
    out["local_map"] = (out["local_map"] > 0.7).to(torch.uint8) * 255
    out["present"] = torch.ones(batch, len(MODALITIES))
    out["flow_mps"] = torch.zeros(batch, SPEC.lidar.beams, 2)
    return out


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_motion_is_that_of_the_nearest_moving_beam_of_each_sector(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scan = rng.uniform(0.1, 8.0, 128).astype(np.float32)
    flow = (rng.normal(size=(128, 2)) * (rng.random((128, 1)) < 0.1)).astype(np.float32)
    found = motion_vector({"scan_m": torch.from_numpy(scan)[None], "flow_mps": torch.from_numpy(flow)[None]}, 16)[0]
    expected = np.zeros((16, 3))
    for sector in range(16):
        moving = [i for i in range(8 * sector, 8 * sector + 8) if flow[i].any()]
        if moving:
            nearest = min(moving, key=lambda i: scan[i])
            closeness = np.exp(-scan[nearest] / 2.0)
            expected[sector] = closeness * np.array([1.0, *flow[nearest]])
    assert np.allclose(found.numpy().reshape(16, 3), expected, atol=1e-6)


def test_beams_without_a_reading_are_told_apart_from_near_ones() -> None:
    some = inputs(1)
    some["scan_m"][0, :4] = torch.tensor([0.0, 0.1, 8.0, 0.0])
    channels = scan_channels(some, SPEC.lidar.range_m)[0]
    assert channels[2, :4].tolist() == [0.0, 1.0, 1.0, 0.0]
    assert channels[0, 0] == pytest.approx(np.log(8.0))
    assert channels[1, 0] == 0
    assert channels[1, 1] > 0.8


def test_nobody_is_asked_for_beams_without_a_reading_nor_for_a_lost_lidar() -> None:
    torch.manual_seed(0)
    decoder = ObservationDecoder(SMALL, SPEC, 20)
    features, whole = torch.randn(3, 20), inputs()
    before = decoder.losses(features, whole)
    blind = {**whole, "scan_m": whole["scan_m"].clone()}
    blind["scan_m"][:, 64:] = 0
    fewer = decoder.losses(features, blind)["scan"]
    assert (fewer < before["scan"]).all()
    other = {**blind, "flow_mps": blind["flow_mps"].clone()}
    other["flow_mps"][:, 64:] = 5.0
    assert torch.equal(decoder.losses(features, other)["scan"], fewer)
    lost = {**whole, "present": torch.tensor([[0.0, 1, 1, 1]] * 3)}
    after = decoder.losses(features, lost)
    assert not after["scan"].any()
    assert not after["motion"].any()
    assert torch.equal(after["goal"], before["goal"])


def test_the_decoder_learns_who_moves() -> None:
    torch.manual_seed(0)
    decoder, some = ObservationDecoder(SMALL, SPEC, 20), inputs(2)
    some["flow_mps"][0, 5:8] = torch.tensor([1.0, -0.5])
    features = torch.eye(2, 20)
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = decoder.losses(features, some)["motion"].sum()
        loss.backward()
        optimizer.step()
    assert decoder.motion is not None
    assert torch.allclose(decoder.motion(features), motion_vector(some, 16), atol=0.02)


def test_motion_and_robot_reach_the_embedding() -> None:
    torch.manual_seed(0)
    encoder, some = ObservationEncoder(SMALL, SPEC), inputs(1)
    plain = encoder(some)
    moving = {**some, "flow_mps": some["flow_mps"].clone()}
    moving["flow_mps"][0, 40] = 1.0
    assert (encoder(moving) - plain).abs().max() > 1e-4
    assert (encoder({**some, "robot": some["robot"] + 0.5}) - plain).abs().max() > 1e-4
    gone = {**moving, "present": torch.tensor([[0.0, 1, 1, 1]])}
    assert torch.equal(encoder(gone), encoder({**gone, "flow_mps": some["flow_mps"]}))


@pytest.mark.parametrize("modalities", [("scan", "goal", "body"), ("local_map", "goal"), ("goal",)])
def test_modalities_can_be_left_out(modalities: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, modalities=modalities)
    names = config.input_names(SPEC)
    some = {name: values for name, values in inputs().items() if name in names}
    embedding = ObservationEncoder(config, SPEC)(some)
    assert embedding.shape == (3, 16)
    losses = ObservationDecoder(config, SPEC, 16).losses(embedding, some)
    for name in MODALITIES:
        assert bool((losses[name] > 0).all()) == (name in modalities)
    assert ("flow_mps" in names) == ("scan" in modalities)
    assert ("robot" in names) == ("body" in modalities)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"motion": True}, r"encoder\.motion: expected encoder\.flow with it"),
        ({"modalities": ("body", "goal")}, "in that order, got body, goal"),
        ({"modalities": ("scan",)}, "'goal' among them"),
        ({"modalities": ()}, "got none"),
    ],
)
def test_settings_that_do_not_fit_are_named(change: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        EncoderConfig(**change)  # type: ignore[arg-type]
