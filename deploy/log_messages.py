"""What only the log is told: the world model's state, the map, and imagined rollouts; with the record that carries it.

They travel from a process to the recorder beside the messages of `deploy.wire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

import msgspec
import numpy as np
from numpy.typing import NDArray

from deploy import wire
from robonav.errors import WireError

if TYPE_CHECKING:
    from robonav.mapping.grid import OccupancyGrid

FREE, UNKNOWN, OCCUPIED = 0, 127, 255  # values of a map's cells
FEATURES = ("memory", "latent")  # h_{t-1} and z_t, which all heads read; the layers' inner state comes out of a replay


class BeliefMsg(wire.Message, frozen=True, array_like=True, kw_only=True, tag="belief"):
    """The world model's state after the observation with number `observation`: tensors by name, batch of 1."""

    observation: wire.Count
    state: dict[str, wire.Array]


class RolloutsMsg(wire.Message, frozen=True, array_like=True, kw_only=True, tag="rollouts"):
    """Imagined paths (K, H, 2) in odom in metres, a value (K,) each, and the index of the chosen one."""

    observation: wire.Count
    paths_odom_m: wire.Array
    values: wire.Array
    chosen: wire.Count


class MapMsg(wire.Message, frozen=True, array_like=True, kw_only=True, tag="map"):
    """A part of the occupancy grid; rows grow with y, columns with x, `cells` is row-major FREE, UNKNOWN, OCCUPIED."""

    observation: wire.Count
    origin_odom_m: tuple[wire.Finite, wire.Finite]  # outer corner of cell (0, 0)
    resolution_m: wire.Number
    rows: wire.Count
    columns: wire.Count
    cells: bytes

    @property
    def occupancy(self) -> NDArray[np.uint8]:
        """(rows, columns) cells."""
        return np.frombuffer(self.cells, np.uint8).reshape(self.rows, self.columns)


LogMessage = Union[wire.Any_, BeliefMsg, RolloutsMsg, MapMsg]  # noqa: UP007  msgspec reads it at run time


class LogRecord(msgspec.Struct, frozen=True, array_like=True, tag="record"):
    """A `wire.RecordMsg` that may hold the log's own messages as well."""

    source: str
    sequence: wire.Count
    sent_ns: wire.Count
    messages: tuple[LogMessage, ...]


_DECODER = msgspec.msgpack.Decoder(LogRecord)


def decode_record(frame: bytes) -> LogRecord:
    """A frame as a record.

    Raises:
        WireError: it is none, or a value in it is out of range.
    """
    try:
        return _DECODER.decode(frame)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"no record of protocol {wire.PROTOCOL}: {str(error)[:160]}") from None


def pack_belief(memory: Mapping[str, NDArray[Any]], decision: wire.DecisionMsg) -> BeliefMsg:
    """The features among a bundle's state tensors; all tensors of a bundle that names none so."""
    names = [name for name in FEATURES if name in memory] or list(memory)
    return BeliefMsg(**_at(decision), state={name: wire.pack_array(memory[name]) for name in names})


def pack_rollout(path_odom_m: NDArray[Any], decision: wire.DecisionMsg) -> RolloutsMsg:
    """The one path that a planner chose, with the value that it decided by."""
    paths, values = wire.pack_array(np.asarray(path_odom_m)[None]), wire.pack_array([decision.value])
    return RolloutsMsg(**_at(decision), paths_odom_m=paths, values=values, chosen=0)


def pack_map(grid: OccupancyGrid, pose_odom_base: NDArray[Any], radius_m: float, decision: wire.DecisionMsg) -> MapMsg:
    """The grid within `radius_m` of the robot."""
    cell = grid.resolution_m
    low = np.floor((np.asarray(pose_odom_base[:2], np.float64) - radius_m) / cell).astype(int)
    high = np.ceil((np.asarray(pose_odom_base[:2], np.float64) + radius_m) / cell).astype(int)
    part = grid.cropped(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    cells = np.full(part.log_odds.shape, UNKNOWN, np.uint8)
    cells[part.free], cells[part.occupied] = FREE, OCCUPIED
    origin = (float(part.origin_odom_m[0]), float(part.origin_odom_m[1]))
    rows, columns = len(cells), cells.size // len(cells)
    return MapMsg(
        **_at(decision), origin_odom_m=origin, resolution_m=cell, rows=rows, columns=columns, cells=cells.tobytes()
    )


def _at(decision: wire.DecisionMsg) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("sequence", "stamp_ns", "episode", "observation")}
