"""Logs of the episodes that an evaluation failed in, for ``robonav replay``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import robonav
from robonav.config import package_versions, to_mapping

if TYPE_CHECKING:
    from robonav.evaluation.runner import Recording
    from robonav.types import RobotSpec


def write_failures(
    folder: Path, recordings: Sequence[Recording], policy: str, planner: str | None, spec: RobotSpec
) -> int:
    """Writes ``OUTCOME_SCENE.mcap`` for each recording that kept its ticks, with the seed where the name lacks it.

    Returns:
        How many.

    Raises:
        LogError: the folder cannot be written.
    """
    from deploy.episode_log import write_episode

    about = _about(policy, planner, spec)
    failed = [r for r in recordings if r.ticks is not None]
    for recording in failed:
        episode = recording.episode
        run = {
            **about,
            "scene": episode.scene,
            "seed": str(episode.seed),
            "randomisation": json.dumps(episode.randomisation, default=str),
        }
        number = "" if episode.scene.endswith(str(episode.seed)) else f"_{episode.seed}"
        path = folder / f"{episode.outcome}_{episode.scene}{number}.mcap"
        decision_ms = episode.decision_ms.tolist()
        write_episode(path, recording.ticks or (), episode.outcome, run, episode.seed, decision_ms)
    return len(failed)


def _about(policy: str, planner: str | None, spec: RobotSpec) -> dict[str, str]:
    """What the logs say about all episodes; the bundle, if the policy is one."""
    from policies.bundle import load_bundle
    from policies.registry import find_policy

    about = {
        "driver": "evaluate",
        "policy": policy,
        "planner": planner or "",
        "robot": json.dumps(to_mapping(spec)),
        "versions": json.dumps({"robonav": robonav.__version__, **package_versions()}),
    }
    kind, path = find_policy(policy)
    if kind == "bundle":
        bundle = load_bundle(path)
        about |= {"bundle": str(bundle.folder.resolve()), "bundle_name": bundle.contract.name}
        about["bundle_sha256"] = bundle.sha256
    return about
