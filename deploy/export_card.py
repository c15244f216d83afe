"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.graph import OPSET
from robonav.learning.checkpoint import Checkpoint
from robonav.ssm.pattern import describe_pattern
from robonav.world_model.encoders import EncoderConfig


def model_card(name: str, checkpoint: Checkpoint, notes: str, precision: str = "fp32") -> str:
    """Markdown: what the model is, how it came to be, and what it is not for."""
    info, config = checkpoint.info, checkpoint.agent.config
    parameters = sum(p.numel() for n, p in checkpoint.agent.named_parameters() if "slow_critic" not in n)
    model, backbone, spec = config.model, config.model.backbone, checkpoint.spec
    encoder = model.encoder
    latents = f"{model.groups} x {model.classes} categorical latents ({model.sampled_groups} of them sampled)"
    kinds = describe_pattern(backbone.pattern)
    memory = f"backbone `{backbone.pattern}` ({kinds}), d_model {backbone.d_model}, d_state {backbone.d_state}"
    scenes = ", ".join(f"`{scene}`" for scene in dict.fromkeys(info.get("scenes", []))) or "unknown"
    budget = f"{info.get('updates', '?')} updates on {info.get('env_steps', '?')} environment steps"
    others = " and others with the same sensors, whose size and limits it reads" if encoder.robot else ""
    return f"""# {name}

A navigator for the robot `{spec.name}`{others}: {_senses(encoder, spec.lidar.beams)} in,
a velocity command out, at {spec.rate_hz:g} Hz.

| | |
|---|---|
| world model | {latents}, {memory} |
| parameters | {parameters / 1e6:.2f} M, with critic and decoders; the graph holds what the actor needs |
| training | {budget} in {info.get("minutes", "?")} minutes{_began(info)}, seed {info.get("seed", "?")} |
| data | simulated scenes only ({scenes}, see `configs/scenes`); no recorded human or robot data |
| graph | ONNX opset {OPSET}, weights {precision}, batch 1, explicit state |

{notes.strip()}

## Not for
{_limits(encoder)} Run it behind the governor.
"""


def _began(info: Mapping[str, Any]) -> str:
    """What was trained before, if the run began with trained weights."""
    before = info.get("began_with") or {}
    if not before:
        return ""
    budget = f"{before.get('updates', '?')} on {before.get('env_steps', '?')} steps in {before.get('minutes', '?')} min"
    return f", begun with the weights of a run of {budget}{_began(before)}"


def _senses(encoder: EncoderConfig, beams: int) -> str:
    words = {
        "scan": f"lidar ({beams} beams{', with the velocity of what they hit' if encoder.flow else ''})",
        "local_map": "local map",
        "goal": "goal and route waypoints",
        "body": "body state",
    }
    return ", ".join(words[modality] for modality in encoder.modalities)


def _limits(encoder: EncoderConfig) -> str:
    if encoder.flow:
        return "Stairs, ramps, drops. It has met people in simulation only, and does collide with them there."
    return "People and other things that move, stairs, ramps, drops: it has seen static scenes only."
