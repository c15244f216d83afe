"""How an update is computed may be chosen: device, precision, compilation; several ranks learn as one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from counting_env import SPEC, CountingFactory
from lives import full_config
from noise import batch_of
from ports import free_port
from tiny import tiny_config

from robonav.errors import ConfigError
from robonav.imagination.agent import Agent
from robonav.imagination.imitation import imitation_loss
from robonav.learning.checkpoint import load_agent
from robonav.learning.collector import InProcessPool
from robonav.learning.config import KickstartConfig, OptimizerConfig, TrainConfig
from robonav.learning.device import device_of
from robonav.learning.learner import PARTS, Learner
from robonav.learning.ranks import ALONE, joined_ranks
from robonav.learning.trainer import train
from robonav.ssm.state import map_state
from robonav.world_model.encoders import with_patches


def test_every_part_of_an_update_is_on_the_clock() -> None:
    from contextlib import nullcontext

    learner, told = Learner(replace(tiny_config(), behavior_start=0), SPEC), []
    learner.clock = lambda part: told.append(part) or nullcontext()  # type: ignore[func-returns-value]
    learner.update(*batch_of(learner.config, 0), 0)
    assert set(told) == set(PARTS) - {"sampling"}


def test_an_expert_may_shape_what_the_memory_keeps() -> None:
    """The pull reaches the encoder, leaves the actor to its own optimiser, and waits for the actor's start."""
    kickstart = KickstartConfig(streams=1, shape=2.0)
    config = replace(tiny_config(), behavior_start=1, kickstart=kickstart)
    batch, dreams = batch_of(config, 0)
    batch |= {"label": torch.full_like(batch["action"], 0.5), "labelled": torch.ones_like(batch["reward"])}
    learner = Learner(config, SPEC)
    assert "shape" not in learner.update(batch, dreams, 0)
    before = {name: p.detach().clone() for name, p in learner.agent.behavior.actor.named_parameters()}
    sequence = learner.agent.model.observe(with_patches(batch, torch.float32), batch["action"], batch["first"], dreams)
    loss = learner._shape_loss(sequence, batch)
    features = sequence.features.detach()
    own = imitation_loss(learner.agent.behavior.actor, features, batch["label"], batch["labelled"])
    assert torch.allclose(loss, 2 * own)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.agent.model.encoder.parameters())
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in learner.agent.behavior.actor.named_parameters())
    assert learner.update(batch, dreams, 1)["shape"] > 0


def test_bfloat16_is_near_float32_and_keeps_weights_and_losses_in_float32() -> None:
    config = replace(tiny_config(), behavior_start=0)
    batch, dreams = batch_of(config, 0, rows=8)
    scalars = []
    for precision in ("float32", "bfloat16"):
        learner = Learner(replace(config, precision=precision), SPEC)
        torch.manual_seed(0)
        scalars.append(learner.update(batch, dreams, 200))
        assert all(p.dtype == torch.float32 for p in learner.agent.parameters())
        assert all(torch.isfinite(p).all() for p in learner.agent.parameters())
    exact, rough = scalars
    assert exact.keys() == rough.keys()
    assert exact != rough
    for name in ("model", "scan", "map", "goal", "reward", "continue", "critic"):
        assert rough[name] == pytest.approx(exact[name], rel=0.05, abs=0.02), name


def test_nothing_is_made_on_another_device_than_the_weights() -> None:
    """On the meta device shapes are computed and nothing else; a tensor from elsewhere would be refused.

    Without memory: the layers that have one switch autocast off, which knows no meta device.
    """
    config = tiny_config()
    model = replace(config.agent.model, prior_heads=2, backbone=replace(config.agent.model.backbone, pattern="II"))
    agent = Agent(replace(config.agent, model=model), SPEC).to("meta")
    batch, dreams = batch_of(config, 0)
    batch = {name: values.to("meta") for name, values in batch.items()}
    dreams = dreams.to("meta")
    sequence = agent.model.observe(batch, batch["action"], batch["first"], dreams)
    losses = agent.model.loss(batch, sequence, batch["reward"], batch["terminal"], batch["first"])
    assert {loss.device.type for loss in losses.values()} == {"meta"}
    state = map_state(torch.Tensor.detach, sequence.dream_states)
    dreamt = agent.behavior.dream(agent.model, state, torch.zeros(4, agent.model.latent_size, device="meta"))
    assert dreamt.features.shape == (4, 4, agent.model.feature_size)
    for loss in agent.behavior.losses(agent.model, dreamt).values():
        assert loss.device.type == "meta"
    sum(losses.values()).backward()
    assert agent.model.encoder.joint[0].weight.grad.device.type == "meta"


def test_devices() -> None:
    assert device_of("cpu").type == "cpu"
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="a CUDA device for 'cuda', got none; use 'cpu' or 'auto'"):
            Learner(replace(tiny_config(), device="cuda"), SPEC)


def test_weights_for_collectors_are_copies_on_the_processor() -> None:
    learner = Learner(tiny_config(), SPEC)
    copied = learner.weights()
    learner.agent.behavior.actor.net[-1].bias.data.add_(1.0)
    assert not torch.equal(copied["behavior.actor.net.3.bias"], learner.agent.behavior.actor.net[-1].bias)
    assert {value.device.type for value in copied.values()} == {"cpu"}


@pytest.mark.slow
def test_a_compiled_update_is_near_the_plain_one() -> None:
    config = replace(tiny_config(), agent=_without_samples(tiny_config()), behavior_start=100)
    batch, dreams = batch_of(config, 0)
    found = []
    for compiled in (False, True):
        learner = Learner(replace(config, compile=compiled), SPEC)
        found.append([learner.update(batch, dreams, k) for k in range(3)])
    for plain, fused in zip(*found, strict=True):
        assert fused == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_learning_rates_rise_at_a_parts_start_and_fall_at_the_runs_end() -> None:
    optimizer = OptimizerConfig(warmup=10, anneal=0.5)
    factors = [optimizer.rate_at(k, 0, 100) for k in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert set(factors[9:51]) == {1.0}
    assert np.allclose(np.diff(factors[51:]), -0.9 / 50)
    assert factors[-1] == pytest.approx(0.1 + 0.9 / 50)
    assert optimizer.rate_at(20, 20, 100) == pytest.approx(0.1)  # the actor begins later
    assert {OptimizerConfig(warmup=0).rate_at(k, 0, 100) for k in (0, 50, 99)} == {1.0}
    with pytest.raises(ConfigError, match=r"anneal: expected a share from 0 to 1, got 1\.5"):
        OptimizerConfig(anneal=1.5)


def test_the_rates_that_optimisers_use_are_those() -> None:
    config = replace(tiny_config(), behavior_start=2, updates=10)
    config = replace(config, optimizer=replace(config.optimizer, warmup=4, anneal=0.4))
    learner = Learner(config, SPEC)
    for updates in (0, 3, 9):
        learner.update(*batch_of(config, updates), updates)
        for optimizer, rate, begin in (
            (learner.model_optimizer, config.optimizer.model_lr, 0),
            (learner.behavior_optimizer, config.optimizer.behavior_lr, 2),
        ):
            if updates >= begin:
                expected = rate * config.optimizer.rate_at(updates, begin, 10)
                assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


# ranks


def _without_samples(config: TrainConfig) -> Any:
    """Without random latents, so that an update follows from its batch alone."""
    return replace(config.agent, model=replace(config.agent.model, sampled_groups=0))


def _rank(rank: int, ports: tuple[int, int], folder: str) -> None:
    import os

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports[0]))
    torch.set_num_threads(1)
    with joined_ranks(cuda=False) as ranks:
        assert (ranks.rank, ranks.size, ranks.leads) == (rank, 2, rank == 0)
        assert ranks.agree(rank == 0)
        config = replace(tiny_config(), agent=_without_samples(tiny_config()), behavior_start=100)
        learner = Learner(config, SPEC, ranks)
        for k in range(3):
            learner.update(*batch_of(config, 10 * k + rank), k)
        torch.save(learner.agent.state_dict(), f"{folder}/joined_{rank}.pt")
        broken, dreams = batch_of(config, rank)
        if rank == 1:
            broken["reward"][:] = np.nan
        with pytest.raises(Exception, match="not finite at update 3"):  # in both ranks, though one batch alone is bad
            learner.update(broken, dreams, 3)
    os.environ["MASTER_PORT"] = str(ports[1])
    part = replace(full_config(8), evaluation=replace(full_config(8).evaluation, every=0))
    for updates, resume in ((4, False), (8, True)):
        trainer = train(replace(part, updates=updates), SPEC, CountingFactory(), _path(folder), resume, InProcessPool)
    torch.save((trainer.agent.state_dict(), trainer.replay.state()), f"{folder}/trained_{rank}.pt")


def _path(folder: str) -> Path:
    return Path(folder) / "run"


def test_two_ranks_learn_what_one_learns_from_both_batches(tmp_path: Path) -> None:
    mp.spawn(_rank, ((free_port(), free_port()), str(tmp_path)), nprocs=2)
    joined = [torch.load(tmp_path / f"joined_{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert all(torch.equal(v, joined[1][k]) for k, v in joined[0].items())
    config = replace(tiny_config(), agent=_without_samples(tiny_config()), behavior_start=100)
    learner = Learner(config, SPEC)
    start = {k: v.clone() for k, v in learner.agent.state_dict().items()}
    for k in range(3):
        halves = [batch_of(config, 10 * k + rank) for rank in (0, 1)]
        batch = {name: torch.cat([half[0][name] for half in halves]) for name in halves[0][0]}
        learner.update(batch, torch.cat([half[1] for half in halves]), k)
    for name, value in learner.agent.state_dict().items():
        moved = (value - start[name]).abs().max()
        assert torch.allclose(value, joined[0][name], rtol=1e-4, atol=float(0.02 * moved) + 1e-7), name
    # whole runs: behaviour, resume and rank 0's files
    (one, its_replay), (other, theirs) = (
        torch.load(tmp_path / f"trained_{rank}.pt", weights_only=False) for rank in (0, 1)
    )
    assert all(torch.equal(v, other[k]) for k, v in one.items())
    assert its_replay["replay.check"] != theirs["replay.check"]  # each gathers its own experience
    assert load_agent(tmp_path / "run").info["updates"] == 8
    assert [path.name for path in (tmp_path / "run").glob("rank_*")] == ["rank_1_8.safetensors"]


@pytest.mark.parametrize(("rank", "size"), [("x", "2"), ("2", "2"), ("-1", "1")])
def test_ranks_that_cannot_be_are_one_line(monkeypatch: pytest.MonkeyPatch, rank: str, size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match="RANK, WORLD_SIZE"), joined_ranks(cuda=False):
        pass


def test_alone_every_verb_is_the_identity() -> None:
    weight = torch.ones(3, requires_grad=True)
    weight.sum().backward()
    ALONE.average_gradients([weight])
    ALONE.barrier()
    assert torch.equal(weight.grad, torch.ones(3))
    assert ALONE.mean(weight) is weight
    assert ALONE.agree(True) and not ALONE.agree(False)
