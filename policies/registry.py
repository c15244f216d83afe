"""Policies by name or folder, each imported when it is asked for: baselines need neither torch nor onnxruntime."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from robonav.config import config_dir, to_mapping
from robonav.errors import PolicyError, explain, nearest
from robonav.types import Policy, RobotSpec

_WEIGHTS = "checkpoint.safetensors"
_SB3 = "sb3.safetensors"


def pretrained_dir() -> Path:
    """Folder of the bundles that come with the package, each in a folder of its name."""
    return Path(__file__).resolve().parent / "pretrained"


def baseline_names() -> list[str]:
    """Names of the presets of `policies.baselines`, without importing their methods."""
    return sorted(path.stem for path in (config_dir() / "policies").glob("*.toml"))


def known_policies() -> list[str]:
    """Names that `make_policy` takes, baselines first."""
    shipped = sorted(p.name for p in pretrained_dir().iterdir() if _kind(p)) if pretrained_dir().is_dir() else []
    return [*baseline_names(), *shipped]


def make_policy(name_or_dir: str | Path, spec: RobotSpec, **options: Any) -> Policy:
    """The policy of a name (see `known_policies`), a bundle, a run folder or a checkpoint, for a robot.

    Args:
        name_or_dir: a preset or .toml file of a baseline, a name under ``policies/pretrained``, or a path.
        spec: the robot that it shall drive.
        options: ``planner`` ("actor", "mppi", ...) for checkpoints and bundles; baselines take none.

    Raises:
        PolicyError: unknown name, a folder that holds no policy, or an option that it does not take.
        CheckpointError, BundleError: the files are there and damaged, or made for another robot.
    """
    name = str(name_or_dir)
    options = {key: value for key, value in options.items() if value is not None}  # None: not set
    kind, path = find_policy(name)
    if kind == "baseline":
        from policies.baselines import make_baseline

        _refuse(options, f"policy '{name}'")
        return make_baseline(name, spec)
    if kind == "bundle":
        from policies import bundle_policy

        return cast(Policy, bundle_policy.load(path, spec, **options))
    if kind == "checkpoint":
        from policies import world_model_policy

        return cast(Policy, world_model_policy.load(path, spec, **options))
    from policies import sb3_policy

    _refuse(options, f"policy '{name}'")
    return cast(Policy, sb3_policy.load(path, spec))


def find_policy(name_or_dir: str | Path) -> tuple[str, Path]:
    """What a name or path stands for: "baseline", "bundle", "checkpoint" or "sb3", and where it lies.

    Raises:
        PolicyError: unknown name, or a folder that holds no policy.
    """
    name = str(name_or_dir)
    if name in baseline_names() or name.endswith(".toml"):
        return "baseline", Path(name)
    # a name like "quick" may be a folder here and a shipped bundle: the one that the user can see wins
    for path in (Path(name), pretrained_dir() / name):
        if kind := _kind(path):
            return kind, path
    if Path(name).exists():
        expected = f"a bundle (bundle.json), a run folder or a checkpoint ({_WEIGHTS}, {_SB3})"
        raise PolicyError(explain(f"policy '{name}'", expected, "something else", "check the path"))
    raise PolicyError(f"policy '{name}': no such name or path; {nearest(name, known_policies())}")


def fingerprint(name_or_dir: str | Path) -> str:
    """A short hash of what a policy is made of: a baseline's values, a bundle's or checkpoint's content.

    Raises:
        PolicyError, ConfigError, BundleError: as `make_policy`.
    """
    kind, path = find_policy(name_or_dir)
    if kind == "baseline":
        from policies.baselines import load_baseline

        content = json.dumps(to_mapping(load_baseline(str(name_or_dir))), sort_keys=True).encode()
    elif kind == "bundle":
        from policies.bundle import load_bundle

        content = load_bundle(path).sha256.encode()
    else:
        file = path if path.is_file() else path / (_WEIGHTS if kind == "checkpoint" else _SB3)
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _kind(path: Path) -> str | None:
    """Whether a path holds a "bundle", a "checkpoint" of our own agent or of "sb3", or none of them (None)."""
    if path.is_file():
        own = "checkpoint" if path.suffix == ".safetensors" else None
        return "sb3" if path.name.endswith(_SB3) else own
    if any((path / name).is_file() for name in ("bundle.json", "policy.onnx")):
        return "bundle"
    kinds = (kind for kind, file in (("checkpoint", _WEIGHTS), ("sb3", _SB3)) if (path / file).is_file())
    return next(kinds, None)


def _refuse(options: dict[str, Any], where: str) -> None:
    """Refuses all options.

    Raises:
        PolicyError: there is one.
    """
    if options:
        raise PolicyError(
            explain(where, "no options", ", ".join(sorted(options)), "options are for checkpoints and bundles")
        )
