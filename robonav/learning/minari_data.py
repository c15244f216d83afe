"""Episodes to and from Minari, Farama's format for recorded episodes (HDF5 and a JSON of spaces).

Minari has n + 1 observations for n actions, so an episode of m steps becomes m - 1 transitions: the reward and ending
that came with step t + 1 stand beside the action of step t. Events travel as infos. Nothing is compressed with loss.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robonav.errors import RobonavError, explain
from robonav.learning.streams import Arrays
from robonav.types import ACTION_SIZE, RobotSpec, policy_input_shapes

PATH_VARIABLE = "MINARI_DATASETS_PATH"
EVENT = "event"
NAME = re.compile(r"([\w-]+/)*[\w-]+-v\d+")


def export_minari(episodes: Sequence[Arrays], spec: RobotSpec, folder: Path, name: str, about: str = "") -> Path:
    """Writes episodes as the Minari dataset `name`, as in "robonav/office-v0", under `folder`; its path.

    Raises:
        RobonavError: the dataset is there already, its name is none of Minari's, or there is no episode.
    """
    import minari
    from gymnasium import spaces

    if not episodes:
        raise RobonavError(explain("episodes", "at least one", "none", "check the logs"))
    if not NAME.fullmatch(name):
        raise RobonavError(explain(f"dataset '{name}'", "a name as in office-v0 or robonav/office-v0", "another one"))
    if (folder / name).exists():
        raise RobonavError(explain(str(folder / name), "a new dataset", "one that exists", "choose another name"))
    boxes = {key: _box(np.asarray(episodes[0][key])) for key in policy_input_shapes(spec)}
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".minari-", dir=folder) as aside, _stored_in(Path(aside)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"minari\.")  # it asks for an author and for the environment's name
        try:
            minari.create_dataset_from_buffers(
                name,
                [_buffer(number, episode, spec) for number, episode in enumerate(episodes)],
                observation_space=spaces.Dict(boxes),
                action_space=spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32),
                algorithm_name="recorded",
                description=about or f"Recorded episodes of robot {spec.name}.",
                jpeg_encoding=False,
                data_format="hdf5",
            )
        except ValueError as error:
            raise RobonavError(explain(f"dataset '{name}'", "a name as in office-v0", error)) from None
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(aside) / name).rename(folder / name)
    return folder / name


def is_minari(folder: Path) -> bool:
    """Whether the folder is that of one Minari dataset."""
    return (folder / "data" / "metadata.json").is_file()


def import_minari(folder: Path) -> list[Arrays]:
    """Episodes of the Minari dataset in `folder`; inverse of `export_minari`.

    Raises:
        RobonavError: no dataset, a damaged one, or one of other observations.
    """
    import minari

    if not is_minari(folder):
        raise RobonavError(explain(str(folder), "a Minari dataset's folder", "no data/metadata.json", "check the path"))
    try:
        dataset = minari.MinariDataset(folder / "data")
        return [_episode(folder, episode) for episode in dataset.iterate_episodes()]
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise RobonavError(explain(str(folder), "a whole Minari dataset", f"{type(error).__name__}: {error}")) from None


def _box(values: Any) -> Any:
    from gymnasium import spaces

    low, high = (0, 255) if values.dtype == np.uint8 else (-np.inf, np.inf)
    return spaces.Box(low, high, values.shape[1:], values.dtype.type)


def _buffer(number: int, episode: Arrays, spec: RobotSpec) -> Any:
    from minari.data_collector import EpisodeBuffer

    n = len(episode["first"])
    ended = episode["terminal"][1:] > 0
    cut = np.zeros(n - 1, np.bool_)
    cut[-1] = not ended[-1]
    return EpisodeBuffer(
        id=number,
        observations={name: np.asarray(episode[name]) for name in policy_input_shapes(spec)},
        actions=np.asarray(episode["action"][:-1], np.float32),
        rewards=np.asarray(episode["reward"][1:], np.float32),
        terminations=ended,
        truncations=cut,
        infos={EVENT: np.asarray(episode.get(EVENT, np.zeros(n)), np.uint8)},
    )


def _episode(folder: Path, episode: Any) -> Arrays:
    n = len(episode.rewards) + 1
    if not isinstance(episode.observations, dict):
        got = type(episode.observations).__name__
        raise RobonavError(explain(str(folder), "observations by the names of a policy's inputs", got))
    steps: Arrays = {name: np.asarray(values) for name, values in episode.observations.items()}
    steps["action"] = np.concatenate([episode.actions, np.zeros((1, ACTION_SIZE))]).astype(np.float32)
    steps["reward"] = np.concatenate([[0.0], episode.rewards]).astype(np.float32)
    steps["terminal"] = np.concatenate([[0.0], episode.terminations]).astype(np.float32)
    steps["first"] = (np.arange(n) == 0).astype(np.float32)
    steps[EVENT] = np.asarray((episode.infos or {}).get(EVENT, np.zeros(n)), np.uint8)
    return steps


@contextmanager
def _stored_in(folder: Path) -> Iterator[None]:
    """Minari knows one place, by an environment variable."""
    before = os.environ.get(PATH_VARIABLE)
    os.environ[PATH_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[PATH_VARIABLE]
        else:
            os.environ[PATH_VARIABLE] = before
