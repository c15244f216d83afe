"""Runs that are ended from outside, as targets of processes."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

from counting_env import SPEC, CountingFactory, counting_expert
from tiny import tiny_config

from robonav.learning.collector import InProcessPool
from robonav.learning.config import KickstartConfig, SensorLossConfig, TrainConfig
from robonav.learning.trainer import Trainer, train


def full_config(updates: int) -> TrainConfig:
    """Everything that a resumed run has to remember: experts, lost sensors, replay on disk, rare starts."""
    config = tiny_config(updates)
    behavior = replace(config.agent.behavior, rare_share=0.5)
    return replace(
        config,
        agent=replace(config.agent, model=replace(config.agent.model, prior_heads=2), behavior=behavior),
        kickstart=KickstartConfig(streams=1, drive=0.5, fade=10),
        sensor_loss=SensorLossConfig(share=0.6),
        replay_on_disk=True,
        replay_steps=80,  # so that the rings go round
    )


def run(config: TrainConfig, folder: Path, resume: bool = False) -> Trainer:
    return train(config, SPEC, CountingFactory(), folder, resume, InProcessPool, counting_expert)


def live(folder: str, updates: int, resume: bool) -> None:
    """A run in a process of its own, without a word on stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run(full_config(updates), Path(folder), resume)


def live_on_a_small_disk(folder: str, size: int) -> None:
    """A run in which no file may grow beyond `size` bytes, told to stdout and ended as the command ends."""
    from robonav.cli import main
    from robonav.cli import train as command

    command.main = lambda argv: run(tiny_config(40), Path(folder)) and 0  # type: ignore[assignment, return-value, func-returns-value]
    os.dup2(1, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    sys.exit(main.main(["train"]))


def live_as_the_command(folder: str) -> None:
    """A run without an end, told as the command tells it."""
    from robonav.cli import train as command

    trainer = run(full_config(100_000), Path(folder))
    sys.exit(command._ended_early(command.TrainArgs(out=Path(folder)), trainer))
