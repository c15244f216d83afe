"""Replay as a plain list of steps, to test the rings against; a small robot; and a life to be killed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from counting_env import SPEC
from safetensors.numpy import load_file, save_file

from robonav.learning.replay import Replay, step_shapes
from robonav.types import LidarSpec, LocalMapSpec

Arrays = dict[str, np.ndarray]
SMALL = replace(SPEC, lidar=LidarSpec(beams=6), local_map=LocalMapSpec(cells=5))  # 75 cells: no whole number of bytes


def chunk(streams: int, start: int, steps: int, life: int = 0) -> Arrays:
    """Every value is a function of life, stream, step and place that half precision holds; reward names the step."""
    stream, step = np.arange(streams)[:, None], np.arange(start, start + steps)
    count = stream * 131 + step * 17 + life * 53
    out: Arrays = {}
    for i, (name, shape) in enumerate(step_shapes(SMALL).items()):
        size = int(np.prod(shape))
        values = (count[..., None] + i * 7 + np.arange(size) * 3).reshape(streams, steps, *shape)
        is_map = name == "local_map"
        out[name] = ((values % 5 < 2) * 255).astype(np.uint8) if is_map else (values % 251 / 8).astype(np.float32)
    out["reward"] = (stream * 100_000 + step).astype(np.float32)
    out["event"] = np.where(count % 11 == 0, 1 << (count // 11 % 4), 0).astype(np.uint8)
    return out


class Reference:
    """A list of steps a stream."""

    def __init__(self, streams: int) -> None:
        self.steps: list[list[dict[str, Any]]] = [[] for _ in range(streams)]

    def add(self, arrays: Arrays) -> None:
        for stream, steps in enumerate(self.steps):
            for t in range(arrays["first"].shape[1]):
                steps.append({name: values[stream, t] for name, values in arrays.items()})

    def cut(self, written: int) -> None:
        self.steps = [steps[:written] for steps in self.steps]

    def check(self, batch: Arrays, oldest: int, written: int) -> None:
        """Every sequence of the batch is a piece of one list, between the two steps, in every array."""
        for i, reward in enumerate(batch["reward"]):
            stream, start = divmod(int(reward[0]), 100_000)
            assert oldest <= start <= written - len(reward)
            wanted = self.steps[stream][start : start + len(reward)]
            for name, values in batch.items():
                assert np.array_equal(values[i], np.stack([step[name] for step in wanted])), name


STREAMS, CAPACITY, SLACK, LENGTH = 2, 150, 60, 12


def open_replay(folder: Path) -> Replay:
    return Replay(SMALL, STREAMS, CAPACITY, folder, slack=SLACK)


def load_state(folder: Path) -> Arrays:
    return load_file(folder / "state.safetensors")


def live(folder: Path, maps: int = 0) -> None:
    """Adds until it is killed, and says so after each checkpoint. What it adds is the same in every life.

    With `maps` it kills itself inside an add, when that many maps were to be packed: the ranges before them in the
    order of arrays are written already, what follows is not.
    """
    pack, packed = np.packbits, [0]

    def packbits(*args: Any, **kwargs: Any) -> Any:
        packed[0] += 1
        if packed[0] == maps:
            os.kill(os.getpid(), signal.SIGKILL)
        return pack(*args, **kwargs)

    np.packbits = packbits
    replay = open_replay(folder / "replay")
    if (folder / "state.safetensors").exists():
        replay.restore(load_state(folder))
    else:
        replay.clear()
    while True:
        for steps in (7, 1, 30, 22):  # all of the slack
            replay.add(chunk(STREAMS, replay.written, steps))
        replay.commit()
        save_file(replay.state(), folder / "aside")
        os.replace(folder / "aside", folder / "state.safetensors")  # noqa: PTH105
        print(replay.written, flush=True)
