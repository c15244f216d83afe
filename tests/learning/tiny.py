"""A configuration small enough for tests."""

from __future__ import annotations

from robonav.imagination.agent import AgentConfig
from robonav.imagination.behavior import BehaviorConfig
from robonav.learning.config import CollectConfig, TrainConfig
from robonav.ssm.backbone import BackboneConfig
from robonav.world_model.encoders import EncoderConfig
from robonav.world_model.model import WorldModelConfig

AGENT = AgentConfig(
    model=WorldModelConfig(
        groups=4,
        classes=4,
        hidden=16,
        backbone=BackboneConfig(pattern="MM", d_model=16, d_state=4, headdim=8),
        encoder=EncoderConfig(sector_width=4, vector_width=8, map_width=8, hidden=16),
    ),
    behavior=BehaviorConfig(hidden=16, layers=1, horizon=3, dreams=2),
)


def tiny_config(updates: int = 8, workers: int = 1, seed: int = 3) -> TrainConfig:
    return TrainConfig(
        seed=seed,
        agent=AGENT,
        collect=CollectConfig(workers=workers, envs=2, steps=8, scenes=("a", "b"), prefill=16),
        batch=2,
        length=7,
        updates=updates,
        behavior_start=2,
        updates_per_iteration=2,
        replay_steps=400,
        checkpoint_every=4,
    )
