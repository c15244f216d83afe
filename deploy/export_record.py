"""What torch answers at recorded ticks: the policy's step, and the planner with its dreams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.drivers import room_scan
from deploy.plans import PlansRecording, stack_plans
from deploy.recording import PARITY_TICKS, ParityRecording
from policies.planner_layout import PlannerLayout
from robonav.imagination.agent import Agent
from robonav.imagination.candidates import TorchImagination
from robonav.planning.local import LocalPilot, PilotState
from robonav.planning.situation import Situation, SituationConfig, SituationTracker
from robonav.types import ACTION_SIZE, Observation, RobotSpec, policy_input_shapes

Arrays = dict[str, NDArray[Any]]
ROOM_M = 8.0


def read_by(agent: Agent, spec: RobotSpec) -> tuple[str, ...]:
    """The arrays of `PolicyInput` that an agent reads."""
    return agent.config.model.encoder.input_names(spec)


@torch.no_grad()
def record(agent: Agent, spec: RobotSpec, ticks: Iterable[Mapping[str, Any]]) -> ParityRecording:
    """Runs torch over the ticks (PolicyInput arrays plus ``reset``), each with the action before it, state carried."""
    state, action = agent.initial_state(1), torch.zeros(1, ACTION_SIZE)
    rows: list[Arrays] = []
    for tick in ticks:
        inputs = {name: torch.from_numpy(np.asarray(tick[name]))[None] for name in read_by(agent, spec)}
        reset = torch.tensor([float(tick["reset"])])
        step = agent.step(state, inputs, action, reset)
        row = {name: tensor.numpy() for name, tensor in inputs.items()}
        row |= {"action_prev": action.numpy(), "reset": reset.numpy()}
        row |= {"out.action": step.action.numpy(), "out.value": step.value.numpy()}
        row["out.next.memory"] = step.state.world.memory.numpy()
        rows.append(row)
        state, action = step.state, step.action
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    outputs = {name.removeprefix("out."): values for name, values in stacked.items() if name.startswith("out.")}
    return ParityRecording({k: v for k, v in stacked.items() if not k.startswith("out.")}, outputs)


@torch.no_grad()
def record_plans(
    agent: Agent,
    spec: RobotSpec,
    layout: PlannerLayout,
    parity: ParityRecording,
    ticks: Sequence[Mapping[str, Any]],
    situation: SituationConfig,
) -> PlansRecording:
    """What numpy and torch plan at the ticks of a recording, each of which has its ``observation`` too."""
    pilot, tracker = LocalPilot(spec, layout.config, on_field=True), SituationTracker(spec, situation)
    state, known, carried = agent.initial_state(1), tracker.reset(), pilot.reset(0)
    rows, episode = [], 0
    for t, tick in enumerate(ticks):
        if float(tick["reset"]):
            known, carried, episode = tracker.reset(), pilot.reset(episode), episode + 1
        inputs = {name: torch.from_numpy(parity.inputs[name][t]) for name in read_by(agent, spec)}
        action, reset = (torch.from_numpy(parity.inputs[name][t]) for name in ("action_prev", "reset"))
        state = agent.step(state, inputs, action, reset).state
        observation: Observation = tick["observation"]
        known = tracker.update(known, observation)
        imagine = TorchImagination(agent, state, layout.doubt_every)
        row, carried = _planned(pilot, layout, carried, observation, known, imagine)
        rows.append(row)
    return stack_plans(rows, spec.lidar.beams + 64)


def _planned(
    pilot: LocalPilot,
    layout: PlannerLayout,
    before: PilotState,
    observation: Observation,
    situation: Situation,
    imagine: TorchImagination,
) -> tuple[dict[str, Any], PilotState]:
    """One tick of a recording, and the pilot's state after it."""
    route = layout.route_arrays(pilot.planner.route(observation, situation))
    local = pilot.field(pilot.surroundings(before, observation, situation)[0], observation)
    after, found, _ = pilot.move(before, observation, situation, imagine)
    row = {
        "twist": np.asarray(observation.twist_base, np.float32),
        "last_command": np.asarray(observation.last_command, np.float32),
        "standing": local.standing,
        "half_m": np.float32(local.half_m),
        "movers": local.movers,
        "route": route[0],
        "route_length": route[1],
        "seed": np.int64(before.planner.seed),
        "tick": np.int64(before.planner.tick),
        "before": before.planner.plan,
        "plan": found.state.plan,
        "score": np.float32(found.score),
    }
    return row, after


def synthetic_ticks(spec: RobotSpec, count: int = PARITY_TICKS, seed: int = 0) -> list[Arrays]:
    """Plausible inputs that need no simulator: smooth random scans, blocky maps, a goal that comes nearer."""
    rng = np.random.default_rng(seed)
    shapes = policy_input_shapes(spec)
    ticks = []
    drift = rng.normal(size=shapes["scan_m"])
    for t in range(count):
        drift = 0.95 * drift + 0.3 * rng.normal(size=drift.shape)
        blocks = rng.random((shapes["local_map"][0], 6, 6)) > 0.7
        cells = spec.local_map.cells
        image = np.repeat(np.repeat(blocks, -(-cells // 6), 1), -(-cells // 6), 2)[:, :cells, :cells]
        tick: Arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        tick["scan_m"] = np.clip(2.5 * np.exp(0.5 * drift), 0.1, spec.lidar.range_m).astype(np.float32)
        tick["local_map"] = image.astype(np.uint8) * 255
        tick["robot"] = spec.dynamics
        tick["present"] = (rng.random(shapes["present"]) > 0.05).astype(np.float32)
        tick["reset"] = np.array(t % 67 == 0, np.float32)
        ticks.append(tick)
    return ticks


def synthetic_drives(
    spec: RobotSpec, situation: SituationConfig, count: int = PARITY_TICKS, seed: int = 0, episode: int = 67
) -> list[dict[str, Any]]:
    """Ticks with their observations: drives along the walls of a room in which somebody walks to and fro."""
    rng, tracker, ticks = np.random.default_rng(seed), SituationTracker(spec, situation), list[dict[str, Any]]()
    pose, known = np.zeros(3), tracker.reset()
    for t in range(count):
        if t % episode == 0:
            pose, known = np.append(rng.uniform(-1.5, 1.5, 2), rng.uniform(-3, 3)), tracker.reset()
        command = np.array([0.6, 0.1, 0.8 * np.sin(t / 9)])
        walker = np.array([1.5 * np.sin(t * 0.07), 2.0])
        scan = np.minimum(room_scan(pose, ROOM_M, spec.lidar), _disc_scan(pose, walker, 0.3, spec))
        observation = Observation(
            stamp_ns=round((t + 1) * 1e9 / spec.rate_hz),
            pose_odom_base=pose.astype(np.float32),
            twist_base=command.astype(np.float32),
            tilt_rad=np.zeros(2, np.float32),
            goal_odom_m=np.array([2.5, -2.5], np.float32),
            last_command=command.astype(np.float32),
            scan_m=scan.astype(np.float32),
        )
        known = tracker.update(known, observation)
        arrays = tracker.policy_input(known, observation).arrays()
        ticks.append({**arrays, "reset": np.float32(t % episode == 0), "observation": observation})
        ahead, left, turn = command * spec.dt_s
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        place = np.clip(pose[:2] + np.array([ahead * cos - left * sin, ahead * sin + left * cos]), -3.4, 3.4)
        pose = np.append(place, pose[2] + turn)
    return ticks


def _disc_scan(pose: NDArray[np.float64], centre: NDArray[np.float64], radius: float, spec: RobotSpec) -> NDArray[Any]:
    """(beams,) ranges to a disc, infinite past it."""
    offset = (complex(*centre) - complex(pose[0], pose[1])) * np.exp(-1j * (pose[2] + spec.lidar.angles_rad))
    offset = offset - spec.lidar.mount_x_m * np.exp(-1j * spec.lidar.angles_rad)
    inside = radius**2 - offset.imag**2
    hit = (inside > 0) & (offset.real > radius)
    return np.where(hit, offset.real - np.sqrt(np.maximum(inside, 0)), np.inf)
