"""Where commands find trained weights: a run folder, a checkpoint, or a bundle, which may be one that is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robonav.errors import BundleError, CheckpointError, explain, nearest

if TYPE_CHECKING:
    from robonav.learning.checkpoint import Checkpoint


def trained(path: str | Path) -> Checkpoint:
    """The agent of a run folder, a checkpoint file or a bundle: its folder, or the name of a shipped one.

    Raises:
        CheckpointError: missing, with the nearest name of a shipped bundle; damaged; or a bundle without its weights.
    """
    from deploy.bundle import find_bundle, shipped_bundles
    from policies.bundle import WEIGHTS, is_bundle
    from robonav.learning.checkpoint import load_agent

    try:
        folder = find_bundle(path)
    except BundleError as error:  # a bare name that is nothing
        do = f"or a shipped bundle: {nearest(str(path), shipped_bundles())}"
        raise CheckpointError(explain(str(path), "a checkpoint", "no such file", do)) from error
    if not is_bundle(folder):
        return load_agent(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        do = "this bundle was exported without its weights; take another one, or the run that it comes from"
        raise CheckpointError(explain(str(weights), "a checkpoint", "no such file", do))
    return load_agent(weights)
