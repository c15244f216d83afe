"""The same seed gives the same episode in another process, and thousands of resets take no more memory than a few."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.geodesic import shortest_ways

WARM = 120  # past the point at which PyBullet's client starts afresh

VARIANTS: dict[str, dict[str, Any]] = {
    "kinematic": {"scene": "crowd-few", "depth": True, "sensors": "real", "randomisation": "sim2real"},
    "analytic": {"scene": "crowd-few", "fidelity": "analytic", "sensors": "real", "randomisation": "sim2real"},
    "legged": {"scene": "rooms", "fidelity": "legged", "sensors": "real", "randomisation": "sim2real"},
}


def fingerprint(options: dict[str, Any], seed: int = 12, steps: int = 15) -> str:
    """Of every bit of an episode: what it showed, paid and recorded."""
    env = sim.make_env(**options)
    digest = hashlib.sha256()
    observation, info = env.reset(seed=seed)
    digest.update(repr(sorted(info["randomisation"].items())).encode())
    for action in np.random.default_rng(0).uniform(-0.2, 1.0, (steps, 3)).astype(np.float32):
        for name in sorted(observation):
            digest.update(observation[name].tobytes())
        observation, reward, terminated, truncated, info = env.step(action)
        digest.update(repr((reward, terminated, truncated, info["position_world_m"].tolist())).encode())
        if terminated or truncated:
            break
    env.close()
    return digest.hexdigest()


def test_a_seed_gives_the_same_episode_in_another_process(root: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/sim')\n"
        "from test_env_endurance import VARIANTS, fingerprint\n"
        "for options in VARIANTS.values(): print(fingerprint(options))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = dict(zip(VARIANTS, done.stdout.split(), strict=True))
    for name, options in VARIANTS.items():
        assert theirs[name] == fingerprint(options), name
        assert theirs[name] != fingerprint(options, seed=13, steps=1), name


def resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth_mb(resets: int, **options: Any) -> float:
    """Memory that the resets after the first `WARM` ones took."""
    env = sim.make_env(**options)
    env.reset(seed=0)
    before = 0.0
    for k in range(WARM + resets):
        if k == WARM:
            before = resident_mb()
        env.reset()
        env.step(np.array([1.0, 0.0, 0.0], np.float32))
    grown = resident_mb() - before
    env.close()
    return grown


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")


@needs_proc
def test_resets_take_no_memory() -> None:
    """150 resets; a search that leaked 8 kB each time once took 1.5 MB of them."""
    assert growth_mb(150, scene="crowd-few", depth=True) < 1.0


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("options", [{"scene": "rooms", "depth": True}, {"scene": "crowd-few", "depth": True}])
def test_two_thousand_resets_take_no_memory(options: dict[str, Any]) -> None:
    """Takes about half a minute each."""
    assert growth_mb(2000, **options) < 2.0


@needs_proc
def test_the_search_for_ways_takes_no_memory() -> None:
    units = np.full((80, 80), np.iinfo(np.int32).max, np.int32)
    units[3, 3] = 0
    edges = np.array([[3, 2, 3], [2, 0, 2], [3, 2, 3]])
    before = 0.0
    for k in range(400):
        if k == 50:
            before = resident_mb()
        found = shortest_ways(units, np.ones((80, 80), np.int8), edges)
    assert resident_mb() - before < 0.5
    assert found[3, 3:8].tolist() == [0, 2, 4, 6, 8]
    assert found[79, 79] == 3 * 76


@needs_proc
@pytest.mark.slow
def test_legged_resets_take_no_memory() -> None:
    """Of the whole environment, about 15 s; those of the world alone are in test_legged_world.py."""
    assert growth_mb(40, scene="rooms", fidelity="legged", policy_input=False) < 2.0
