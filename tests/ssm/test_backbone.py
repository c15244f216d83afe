"""The backbone: every letter and preset against steps, unchanged names, shared weights, nested states, its config."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_env import SPEC, CountingFactory
from tiny import AGENT, tiny_config
from torch import Tensor, nn

from robonav.config import config_dir, from_mapping, load_config, to_mapping
from robonav.errors import ConfigError, ShapeError
from robonav.imagination.candidates import TorchImagination
from robonav.learning.collector import InProcessPool
from robonav.learning.config import TrainConfig
from robonav.learning.trainer import Trainer, worker_configs
from robonav.planning.mppi import MPPIConfig, initial_planner_state, plan
from robonav.ssm.backbone import Backbone, BackboneConfig, backbone_preset, select_state
from robonav.ssm.pattern import LETTERS, MLP, expand_pattern
from robonav.ssm.state import map_state, named_tensors, rebuild_state
from tests.ssm.layer_checks import (
    assert_near,
    check_arguments_unchanged,
    check_carry,
    check_half,
    check_reset_forgets,
    check_scan_equals_steps,
    some_state,
)

SMALL = {"d_model": 16, "d_state": 4, "expand": 1.0, "headdim": 8, "window": 4, "chunk": 5}
PRESETS = sorted(path.stem for path in (config_dir() / "backbones").glob("*.toml"))


def make(pattern: str = "MM", **sizes: object) -> Backbone:
    torch.manual_seed(0)
    return Backbone(from_mapping(BackboneConfig, {**SMALL, "pattern": pattern, **sizes}, "here")).double()


def shrunk(preset: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(replace(backbone_preset(preset), **SMALL)).double()  # type: ignore[arg-type]


# -- scan and steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", sorted(set(LETTERS) - {MLP}))
def test_every_letter_scans_as_it_steps(letter: str) -> None:
    backbone = make(f"{letter}I{letter}", rank=2, kv_heads=2)
    check_scan_equals_steps(backbone, 13, 0.2)
    check_carry(backbone, 9)
    check_reset_forgets(backbone)
    check_arguments_unchanged(backbone)


@pytest.mark.parametrize("letter", "MR21SD")
def test_every_ssm_stands_beside_attention(letter: str) -> None:
    check_scan_equals_steps(make("H", hybrid_ssm=letter, hybrid_rope=True), 13, 0.2)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_scans_as_it_steps(preset: str) -> None:
    check_scan_equals_steps(shrunk(preset), 11, 0.2)
    check_carry(shrunk(preset), 7)


def test_float32_and_half_precision() -> None:
    check_scan_equals_steps(make("MAG2").float(), 40, 0.1)
    check_half(make("M-A").float())


def test_step_without_a_reset_is_a_step_with_none() -> None:
    backbone = make("MA")
    x, state = torch.randn(2, 16, dtype=torch.float64), some_state(backbone, 2)
    assert_near(backbone.step(x, state), backbone.step(x, state, torch.zeros(2, dtype=torch.float64)), 0)


# -- structure -------------------------------------------------------------------------------------------------------


def test_the_default_stack_has_the_names_and_shapes_of_older_checkpoints() -> None:
    layer = {
        "in_proj.weight": (432, 192),
        "dt_bias": (4,),
        "B_bias": (4, 1, 16),
        "C_bias": (4, 1, 16),
        "B_norm.weight": (16,),
        "C_norm.weight": (16,),
        "D": (4,),
        "out_proj.weight": (192, 192),
    }
    want: dict[str, tuple[int, ...]] = {"out_norm.weight": (192,)}
    for i in range(2):
        want |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
        want |= {f"norms.{i}.weight": (192,), f"mlp_norms.{i}.weight": (192,)}
        want |= {f"mlps.{i}.up.weight": (384, 192), f"mlps.{i}.down.weight": (192, 192)}
    assert BackboneConfig().pattern == "MM"
    assert {name: tuple(p.shape) for name, p in Backbone(BackboneConfig()).state_dict().items()} == want


def test_mlps_stand_behind_every_layer_or_only_where_the_pattern_says() -> None:
    assert len(make("MGM").mlps) == 3
    assert len(make("MGM", mlp_ratio=0.0).mlps) == 0
    assert len(make("M-GM").mlps) == 1
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    everywhere, written = make("MG"), make("M-G-")
    assert everywhere.state_dict().keys() == written.state_dict().keys()
    assert_near(everywhere.scan(x, everywhere.initial_state(2)), written.scan(x, written.initial_state(2)), 0)
    first = make("-M")
    y, _ = first.scan(x, first.initial_state(2))
    u = x + first.mlps[0](first.mlp_norms[0](x))
    want = first.out_norm(u + first.layers[0].scan(first.norms[0](u), first.layers[0].initial_state(2))[0])  # type: ignore[operator]
    assert_near(y, want, 1e-12)


def test_zamba_shares_attention_and_the_mlp_behind_it_but_no_state() -> None:
    one, three = make("GZ-"), make("GZ-Z-GZ-")
    names = set(three.state_dict())
    assert len([n for n in names if n.startswith("shared.")]) == len([n for n in one.state_dict() if "shared." in n])
    assert {n for n in names if n.startswith(("mlps.", "shared_mlp."))} == {
        "shared_mlp.up.weight",
        "shared_mlp.down.weight",
    }
    own = {
        n: tuple(p.shape) for n, p in three.state_dict().items() if n.startswith(("layers.1", "norms.1", "layers.4"))
    }
    assert own == {"layers.1.weight": (16, 16), "norms.1.weight": (32,), "layers.4.weight": (16, 16)}
    states = some_state(three, 2)
    caches = [states[i].keys for i in (1, 2, 4)]
    assert not torch.allclose(caches[0], caches[1])
    assert not torch.allclose(caches[1], caches[2])


def test_zamba_reads_the_stacks_input_beside_the_stream() -> None:
    backbone = make("IZ", mlp_ratio=0.0)
    x = torch.randn(1, 16, dtype=torch.float64)
    backbone.layers[0].mlp.down.weight.data.zero_()  # type: ignore[union-attr]
    backbone.norms[1] = nn.Identity()  # the norm would hide the doubling
    seen: list[Tensor] = []
    assert backbone.shared is not None
    backbone.shared.join.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    backbone.step(x, backbone.initial_state(1))
    assert_near(seen[0], torch.cat([x, x], -1), 0)


def test_states_are_selected_row_by_row_flattened_and_rebuilt_when_nested_or_empty() -> None:
    backbone = make("HIZG")
    state, other = some_state(backbone, 3), backbone.initial_state(3)
    names = [name for name, _ in named_tensors(state)]
    assert names[0] == "0.attention.keys"
    assert not [name for name in names if name.startswith("1")], "a memoryless layer has no state"
    picked = select_state(torch.tensor([True, False, True]), state, other)
    for (_, p), (_, s), (_, o) in zip(*(named_tensors(x) for x in (picked, state, other)), strict=True):
        assert torch.equal(p, torch.stack([s[0], o[1], s[2]]))
    again = rebuild_state(backbone.initial_state(1), (tensor for _, tensor in named_tensors(state)))
    assert_near(again, state, 0)
    assert type(again[0]) is type(state[0])


# -- config ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pattern": ""}, "backbone.pattern: expected a layer, got '' (empty)"),
        ({"pattern": "MQ"}, "got 'MQ' (unknown: Q at position 2)"),
        ({"headdim": 5}, "backbone.headdim: expected a divisor of expand * d_model = 192, got 5"),
        ({"pattern": "H", "headdim": 5}, "backbone.headdim"),
        ({"pattern": "2", "ngroups": 3}, "backbone.ngroups: expected a divisor of the 4 heads, got 3"),
        ({"pattern": "R", "rank": 0}, "rank: expected at least 1, got 0"),
        ({"pattern": "A", "attention_heads": 5}, "attention_heads: expected a divisor of d_model = 192, got 5"),
        ({"pattern": "A", "kv_heads": 3}, "backbone.kv_heads: expected a divisor of attention_heads = 4, got 3"),
        ({"pattern": "A", "kv_heads": 0}, "backbone.kv_heads"),
        ({"pattern": "P", "attention_heads": 64}, "an even d_model / attention_heads for the rotary embedding, got 3"),
        ({"window": 0}, "window: expected at least 1, got 0"),
        ({"expand": 0.001}, "backbone.expand"),
        (
            {"pattern": "M-", "mlp_ratio": 0.0},
            "backbone.mlp_ratio: expected above 0 where the pattern holds -, got 0.0",
        ),
        ({"hybrid_ssm": "G"}, "hybrid_ssm: unknown choice 'G'"),
        ({"preset": "jambo"}, "no preset 'jambo'; did you mean 'jamba'?"),
        ({"preset": "nothing"}, f"no preset 'nothing'; known: {', '.join(PRESETS)}"),
    ],
)
def test_values_that_do_not_fit_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_mapping(BackboneConfig, given, "here")
    assert said in str(error.value)


def test_wrong_states_and_inputs_are_named() -> None:
    backbone = make("MI")
    x = torch.zeros(2, 5, 16, dtype=torch.float64)
    with pytest.raises(ShapeError, match="state: expected 2 layers' states, got 1"):
        backbone.scan(x, backbone.initial_state(2)[:1])
    with pytest.raises(ShapeError, match=r"state\.0\.theta: expected batch 2"):
        backbone.scan(x, backbone.initial_state(3))
    with pytest.raises(ShapeError, match=r"x: expected \(B, 16\)"):
        backbone.step(x, backbone.initial_state(2))


def test_presets_are_the_published_layouts_and_build_at_full_size() -> None:
    layouts = {
        "jamba": "1111A111",
        "zamba": "11111Z-1" * 2,
        "granite": "22222A2222",
        "nemotron-h": "2-2-2-2A-2-2-2-2-",
        "falcon-h1": "HHHH",
        "mamba2-hybrid": "22222P2222",
        "mamba3": "MMMM",
        "mamba3-mimo": "RRRR",
        "mamba3-hybrid": "MMMAMM",
    }
    assert {name: expand_pattern(backbone_preset(name).pattern) for name in PRESETS} == layouts
    for name, letters in layouts.items():
        assert len(Backbone(backbone_preset(name)).layers) == len(letters.replace(MLP, ""))
        assert (config_dir() / "backbones" / f"{name}.toml").read_text().startswith("# ")


def test_a_training_preset_picks_a_backbone_by_name_and_may_change_its_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[agent.model.backbone]\npreset = "granite"\nd_model = 96\nheaddim = 24\n')
    got = load_config(TrainConfig, path).agent.model.backbone
    assert got == replace(backbone_preset("granite"), d_model=96, headdim=24)
    assert "preset" not in to_mapping(got), "what is stored with a checkpoint is what it stands for"
    assert from_mapping(BackboneConfig, to_mapping(got), "checkpoint") == got


# -- in the agent ----------------------------------------------------------------------------------------------------


def test_a_hybrid_learns_dreams_and_plans() -> None:
    backbone = replace(AGENT.model.backbone, pattern="HI(MZ)*2", window=4, attention_heads=2)
    agent = replace(AGENT, model=replace(AGENT.model, backbone=backbone))
    trainer = Trainer(replace(tiny_config(), agent=agent), SPEC)
    pool = InProcessPool(worker_configs(trainer.config, SPEC, [0, 0]), CountingFactory())
    pool.request(0, 30, None)
    trainer.replay.add(pool.receive()[0])
    losses = [trainer.update() for _ in range(5)]
    assert all(np.isfinite(list(loss.values())).all() for loss in losses)
    assert "actor" in losses[-1]
    agent = trainer.agent
    world = map_state(lambda t: torch.randn_like(t), agent.initial_state(2)).world
    assert_near(agent.model.state_of([tensor for _, tensor in world.tensors()]), world, 0)
    assert [name for name, _ in islice(world.tensors(), 2)] == ["memory", "layer0.attention.keys"]
    config = MPPIConfig(candidates=4, horizon=3)
    found = plan(TorchImagination(agent, agent.initial_state(1)), initial_planner_state(config, seed=0), config)
    assert np.isfinite(found.action).all()


class StepGraph(nn.Module):
    """A backbone's step with a flat list of state tensors, as it is exported."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.like = backbone, backbone.initial_state(1)

    def forward(self, x: Tensor, reset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, after = self.backbone.step(x, rebuild_state(self.like, iter(state)), reset)
        return y, *(tensor for _, tensor in named_tensors(after))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), pytest.param(torch.float16, 2e-2, marks=pytest.mark.slow)],
)
def test_attention_gru_memoryless_and_shared_layers_export_with_any_batch(
    dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = make("PIGZ", mlp_ratio=0.0, kv_heads=2).to(dtype).eval()
    state = backbone.initial_state(2)
    names, example = zip(*named_tensors(state), strict=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            StepGraph(backbone),
            (torch.zeros(2, 16, dtype=dtype), torch.zeros(2), *example),
            str(tmp_path / "step.onnx"),
            input_names=["x", "reset", *names],
            output_names=["y", *(f"next.{name}" for name in names)],
            opset_version=20,
            dynamo=True,
            external_data=False,
            verbose=False,
            optimize=False,  # takes as long as the rest
            dynamic_shapes={"x": {0: batch}, "reset": {0: batch}, "state": tuple({0: batch} for _ in names)},
        )
    session = onnxruntime.InferenceSession(str(tmp_path / "step.onnx"))
    state = backbone.initial_state(3)
    carried = [tensor.numpy() for _, tensor in named_tensors(state)]
    assert all(array.dtype == np.float32 for array in carried)
    for _ in range(200):
        x, reset = torch.randn(3, 16).to(dtype), (torch.rand(3) < 0.05).float()
        with torch.no_grad():
            y, state = backbone.step(x, state, reset)
        inputs = {"x": x.numpy(), "reset": reset.numpy(), **dict(zip(names, carried, strict=True))}
        got, *carried = session.run(None, inputs)
        assert np.abs(got.astype(np.float32) - y.float().numpy()).max() <= tolerance
        for array, (_, tensor) in zip(carried, named_tensors(state), strict=True):
            assert np.abs(array - tensor.numpy()).max() <= tolerance
