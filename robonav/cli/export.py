"""``robonav export``: a checkpoint becomes a bundle that runs without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from robonav.cli.args import parse
from robonav.cli.trained import trained
from robonav.errors import MissingDependencyError, RobonavError, explain
from robonav.planning.mppi import MPPIConfig

if TYPE_CHECKING:
    from robonav.learning.checkpoint import Checkpoint

PARITY_SEED = 2_000_000_000  # far from the seeds of training and evaluation
EPISODE_TICKS = 80  # at most, so that the record holds several resets

DESCRIPTION = "Exports a checkpoint to a bundle: ONNX graph, contract, parity record, model card."
EXAMPLES = [
    "robonav export runs/quick --out policies/pretrained/quick",
    "robonav export runs/general --out bundles/general --planner --precision fp16 --notes results.md",
    "robonav export general --out bundles/bold --planner --plan.danger-weight 0",
]


@dataclass(frozen=True)
class ExportArgs:
    """Arguments of ``robonav export``."""

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """Run folder, checkpoint file, or a bundle that keeps its weights: a folder, or the name of a shipped one."""
    out: Path
    """Folder of the bundle; it is replaced whole."""
    name: str = ""
    """Name of the bundle; by default that of the folder."""
    notes: Path | None = None
    """Markdown file that is added to the model card."""
    planner: bool = False
    """Export the imagination planner as well, as one graph; it takes some minutes longer."""
    plan: MPPIConfig = field(default_factory=MPPIConfig)
    """With --planner: its dials."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the weights that are stored; what comes out must stay within the precision's tolerance."""
    weights: bool = True
    """Whether the bundle keeps the weights that it is made of, for whoever trains on or exports again. What drives a
    robot does not read them."""
    scene: str = "rooms"
    """Scene whose observations, driven by the policy itself, make the parity record."""


def main(argv: list[str]) -> int:
    """Entry point; 0 on success."""
    args = parse(ExportArgs, argv, "robonav export", DESCRIPTION, EXAMPLES)
    notes = ""
    if args.notes is not None:
        if not args.notes.is_file():
            raise RobonavError(explain("--notes", "a Markdown file", f"'{args.notes}'", "check the path"))
        try:
            notes = args.notes.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RobonavError(explain(f"--notes {args.notes}", "text in UTF-8", error)) from None

    from deploy.bundle import check_target
    from deploy.export import export

    check_target(args.out)
    checkpoint = trained(args.checkpoint)
    planner = args.plan if args.planner else None
    ticks = _driven_ticks(args.scene, checkpoint)
    name = args.name or args.out.resolve().name
    bundle = export(checkpoint, args.out, name, ticks, notes, planner, args.precision, args.weights)
    print(
        f"wrote {args.out}: torch and onnxruntime differ by at most {bundle.parity.max_abs_diff:.1e} "
        f"over {bundle.parity.ticks} ticks; check it anywhere with: robonav verify {args.out}"
    )
    plans = bundle.parity.plans
    if plans is not None:
        print(f"planner: the same plan at {plans.same_share:.1%} of the ticks, scores within {plans.max_abs_diff:.1e}")
    return 0


def _driven_ticks(scene: str, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Ticks of real simulated episodes, driven by the exported policy; synthetic ones without the simulator."""
    from deploy.export import synthetic_drives

    try:
        import sim

        env = sim.make_env(scene=scene, robot=checkpoint.spec)
    except MissingDependencyError:
        print("the simulator is not installed: the parity record is made from synthetic observations")
        return synthetic_drives(checkpoint.spec, checkpoint.situation)
    try:
        return _drive(env, checkpoint)
    finally:
        env.close()


def _drive(env: Any, checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """PARITY_TICKS observations of the environment under the actor's mean, each with ``reset``."""
    import numpy as np
    import torch

    from deploy.bundle import PARITY_TICKS

    agent, ticks, episode = checkpoint.agent, list[dict[str, Any]](), 0
    while len(ticks) < PARITY_TICKS:
        observation, _ = env.reset(seed=PARITY_SEED + episode)
        episode += 1
        state, action = agent.initial_state(1), torch.zeros(1, 3)
        for tick in range(EPISODE_TICKS):
            reset = float(tick == 0)
            ticks.append({**observation, "reset": np.float32(reset), "observation": env.unwrapped.observation()})
            inputs = {k: torch.from_numpy(np.asarray(v))[None] for k, v in observation.items()}
            step = agent.step(state, inputs, action, torch.tensor([reset]))
            state, action = step.state, step.action
            observation, _, terminated, truncated, _ = env.step(action[0].numpy())
            if terminated or truncated or len(ticks) == PARITY_TICKS:
                break
    return ticks
