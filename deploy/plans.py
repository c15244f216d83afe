"""The planner's parity: what numpy and torch planned at recorded ticks, and how far the graph is from it.

A recording keeps what the planner is told of each tick in a small form: the standing points in place of their grid, and
the noise's seed and tick in place of the noise. Memory comes from the policy's own graph over the same ticks, carried
from tick to tick; the last plan is the recorded one, so that a choice that fell otherwise counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from deploy.recording import ParityRecording
from policies.bundle import PlansRecord
from policies.onnx_planner import OnnxPlanner
from policies.onnx_step import OnnxStep
from policies.planner_layout import Feeds, PlannerLayout, Seen
from robonav.errors import BundleError, explain
from robonav.planning.field import LocalField, distance_grid, no_movers
from robonav.planning.mppi import PlannerState
from robonav.types import RobotSpec

Singles = NDArray[np.float32]
SAME_M = 1e-2  # plans of normalised actions that differ by less are the same


class PlansRecording(NamedTuple):
    """T ticks; what was seen, the warm start, and the answer."""

    twist: Singles  # (T, 3)
    last_command: Singles  # (T, 3)
    standing: Singles  # (T, P, 2) points, NaN where there are fewer
    half_m: Singles  # (T,)
    movers: Singles  # (T, MOVERS, 6), or 5 numbers of planners that know no walls
    route: Singles  # (T, N + 1, 2)
    route_length: Singles  # (T, 2)
    seed: NDArray[np.int64]  # (T,)
    tick: NDArray[np.int64]  # (T,)
    before: Singles  # (T, L, 3) the last plan
    plan: Singles  # (T, L, 3)
    score: Singles  # (T,)

    def to_bytes(self) -> bytes:
        """As an npz archive."""
        buffer = BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **self._asdict())
        return buffer.getvalue()


def read_plans(path: Path) -> PlansRecording:
    """Reads a recording (numpy arrays, never pickle).

    Raises:
        BundleError: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return PlansRecording(**{name: archive[name] for name in PlansRecording._fields})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BundleError(explain(str(path), "a planner's recording", str(error)[:120])) from None


def stack_plans(rows: list[dict[str, Any]], points: int) -> PlansRecording:
    """Rows of single ticks, with complex `standing`, as a recording with `points` points a tick."""
    filled = np.full((len(rows), points, 2), np.nan, np.float32)
    for into, row in zip(filled, rows, strict=True):
        standing = row.pop("standing")
        into[: len(standing)] = np.stack([standing.real, standing.imag], 1)
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return PlansRecording(standing=filled, **stacked)


def recorded_feeds(
    recording: PlansRecording, layout: PlannerLayout, spec: RobotSpec
) -> Iterator[tuple[Singles, Feeds]]:
    """For each tick the last plan and the graph's arrays."""
    for t in range(len(recording.score)):
        standing = recording.standing[t]
        standing = standing[np.isfinite(standing[:, 0])]
        points = (standing[:, 0] + 1j * standing[:, 1]).astype(np.complex64)
        half_m = float(recording.half_m[t])
        movers = no_movers()
        movers[:, : recording.movers.shape[-1]] = recording.movers[t]
        local = LocalField(distance_grid(points, half_m), half_m, movers, points)
        known = recording.twist[t], recording.last_command[t], local, recording.route[t], recording.route_length[t]
        seen, state = Seen(*known), PlannerState(recording.before[t], int(recording.seed[t]), int(recording.tick[t]))
        yield recording.before[t], layout.feeds(seen, layout.noise(state, spec, seen.twist), spec)


def plans_difference(
    step: OnnxStep,
    planner: OnnxPlanner,
    parity: ParityRecording,
    recording: PlansRecording,
    spec: RobotSpec,
    bounds: tuple[float, float],
) -> PlansRecord:
    """How far the planner's graph is from a recording of the same ticks as `parity`.

    Args:
        step: makes the memory.
        planner: that is compared.
        parity: inputs of the step.
        recording: of the planner.
        spec: the robot.
        bounds: tolerance and least share of ticks with the same plan, for the record.
    """
    same, differences, regrets = 0, [0.0], [0.0]
    memory = step.initial_state()
    for t, (before, feeds) in enumerate(recorded_feeds(recording, planner.layout, spec)):
        memory, _ = step.step(memory, {name: values[t] for name, values in parity.inputs.items()})
        found = planner.run(memory, before, feeds)
        apart = float(np.abs(found.plan - recording.plan[t]).max())
        less = float(recording.score[t]) - found.score
        if apart < SAME_M:
            same += 1
            differences.append(abs(less))
        else:
            regrets.append(less if np.isfinite(found.score) else float("inf"))
    ticks = len(recording.score)
    # in one tick of some, a sampled latent falls otherwise: the score's 95th percentile is what the arithmetic does
    difference = float(np.percentile(differences, 95))
    return PlansRecord(ticks, same / ticks, float(f"{difference:.6g}"), float(f"{max(regrets):.6g}"), *bounds)


def check_plans(record: PlansRecord, where: str) -> None:
    """Raises BundleError when a planner's graph is further from its recording than its bounds say."""
    if not record.same_share >= record.same_share_min:
        expected, got = f"the same plan at {record.same_share_min:.0%} of the ticks or more", f"{record.same_share:.1%}"
        raise BundleError(explain(f"{where}: planner", expected, got, "export with a higher precision"))
    if not record.max_abs_diff <= record.tolerance:
        expected, got = f"scores within {record.tolerance:g}", f"{record.max_abs_diff:.3g}"
        raise BundleError(explain(f"{where}: planner", expected, got, "export with a higher precision"))
