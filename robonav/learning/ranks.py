"""Several processes that train one set of weights (``torchrun``): each samples its own batch, gradients are averaged.

Every rank gathers its own experience and keeps its own replay; rank 0 alone writes weights and progress. What a loss
divides by (steps with a label, steps that follow another) is counted in each rank's batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from robonav.errors import ConfigError, explain


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process it is of those that train together; alone, every method is the identity."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the ranks."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.size

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces every gradient by its mean over the ranks, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.mean(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, flag: bool) -> bool:
        """What rank 0 says."""
        if self.size == 1:
            return flag
        said = [flag]
        distributed.broadcast_object_list(said, src=0)
        return said[0]

    def barrier(self) -> None:
        """Waits for all."""
        if self.size > 1:
            distributed.barrier()


ALONE = Ranks()


@contextmanager
def joined_ranks(cuda: bool) -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, or this process alone.

    Raises:
        ConfigError: the environment's RANK or WORLD_SIZE is no such number.
    """
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        got = f"{os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}"
        raise ConfigError(explain("RANK, WORLD_SIZE", "whole numbers, as torchrun sets them", got)) from None
    if not 0 <= rank < size:
        raise ConfigError(explain("RANK, WORLD_SIZE", "a rank below the size", f"{rank} of {size}"))
    if size == 1:
        yield ALONE
        return
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(rank, size)
    finally:
        distributed.destroy_process_group()
