"""``robonav export``: a checkpoint becomes a bundle that runs without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from robonav.cli.args import parse
from robonav.errors import RobonavError, explain

DESCRIPTION = "Exports a checkpoint to a bundle: ONNX graph, contract, parity record, model card."
EXAMPLES = [
    "robonav export runs/quick --out policies/pretrained/quick",
    "robonav export runs/quick --out bundles/quick --notes results.md",
]


@dataclass(frozen=True)
class ExportArgs:
    """Arguments of ``robonav export``."""

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """Run folder or checkpoint file."""
    out: Path
    """Folder of the bundle; it is replaced whole."""
    name: str = ""
    """Name of the bundle; by default that of the folder."""
    notes: Path | None = None
    """Markdown file that is added to the model card."""
    scene: str = "rooms"
    """Scene whose observations, driven by the policy itself, make the parity record."""


def main(argv: list[str]) -> int:
    """Entry point; 0 on success."""
    args = parse(ExportArgs, argv, "robonav export", DESCRIPTION, EXAMPLES)
    notes = ""
    if args.notes is not None:
        if not args.notes.is_file():
            raise RobonavError(explain("--notes", "a Markdown file", f"'{args.notes}'", "check the path"))
        notes = args.notes.read_text()

    from deploy.export import export
    from robonav.learning.checkpoint import load_agent

    checkpoint = load_agent(args.checkpoint)
    ticks = _driven_ticks(checkpoint.spec.name, args.scene, checkpoint)
    bundle = export(args.checkpoint, args.out, args.name or args.out.resolve().name, ticks, notes)
    print(
        f"wrote {args.out}: torch and onnxruntime differ by at most {bundle.parity.max_abs_diff:.1e} "
        f"over {bundle.parity.ticks} ticks; check it anywhere with: robonav verify {args.out}"
    )
    return 0


def _driven_ticks(robot: str, scene: str, checkpoint: Any) -> list[dict[str, Any]]:
    """Observations of real simulated episodes, driven by the exported policy; synthetic ones without the simulator."""
    import numpy as np

    from deploy.bundle import PARITY_TICKS
    from deploy.export import synthetic_ticks

    try:
        import sim
    except ModuleNotFoundError:
        print("the simulator is not installed: the parity record is made from synthetic observations")
        return synthetic_ticks(checkpoint.spec)
    import torch

    from robonav.imagination.agent import Agent

    agent: Agent = checkpoint.agent
    env = sim.make_env(scene=scene, robot=robot)
    ticks: list[dict[str, Any]] = []
    episode = 0
    try:
        while len(ticks) < PARITY_TICKS:
            observation, _ = env.reset(seed=2_000_000_000 + episode)
            episode += 1
            state, action, reset, done = agent.initial_state(1), torch.zeros(1, 3), 1.0, False
            while not done and len(ticks) < PARITY_TICKS and not (reset == 0 and len(ticks) % 80 == 0):
                ticks.append({**observation, "reset": np.float32(reset)})
                inputs = {k: torch.from_numpy(np.asarray(v))[None] for k, v in observation.items() if k != "depth_m"}
                step = agent.step(state, inputs, action, torch.tensor([reset]))
                state, action, reset = step.state, step.action, 0.0
                observation, _, terminated, truncated, _ = env.step(action[0].numpy())
                done = terminated or truncated
    finally:
        env.close()
    return ticks
