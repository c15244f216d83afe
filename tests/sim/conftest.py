"""Fixtures of the simulator's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import sim
from sim.env import NavigateEnv


@pytest.fixture
def env() -> Iterator[Callable[..., NavigateEnv]]:
    """Makes environments that read raw sensors, and closes them."""
    made: list[NavigateEnv] = []

    def make(**options: object) -> NavigateEnv:
        made.append(sim.make_env(**{"policy_input": False, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()
