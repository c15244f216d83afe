"""``robonav verify``: checks a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from robonav.cli.args import parse

if TYPE_CHECKING:
    from deploy.verify import Verification

DESCRIPTION = (
    "Checks a bundle: files, hashes, contract against graphs, 200 ticks against what torch answered and planned, "
    "latency on each provider. Builds TensorRT's engines where there is TensorRT."
)
EXAMPLES = ["robonav verify policies/pretrained/quick", "robonav verify bundles/general --provider cuda --json"]


@dataclass(frozen=True)
class VerifyArgs:
    """Arguments of verify."""

    bundle: tyro.conf.Positional[Path]
    """Folder of the bundle, or a name under policies/pretrained."""
    provider: Literal["auto", "tensorrt", "cuda", "cpu"] | None = None
    """Where the graphs run; auto takes the first of TensorRT, CUDA and CPU that there is. By default what
    ROBONAV_PROVIDER says, else auto."""
    allow_fallback: bool = False
    """Take the CPU where a GPU was asked for and there is none."""
    half: bool = False
    """Let TensorRT compute in half precision."""
    json: bool = False
    """Print the findings as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 only if hashes, contract, graphs and parity hold."""
    args = parse(VerifyArgs, argv, "robonav verify", DESCRIPTION, EXAMPLES)
    from deploy.bundle import find_bundle
    from deploy.verify import verify
    from policies.onnx_session import Runtime

    known = Runtime.of_environment()
    fallback = args.allow_fallback or (args.provider is None and known.allow_fallback)
    runtime = Runtime(args.provider or known.provider, fallback, half=args.half)
    found = verify(find_bundle(args.bundle), runtime)
    print(json.dumps(found.to_json(), indent=2) if args.json else shown(found))
    return 0


def shown(found: Verification) -> str:
    """The findings for people."""
    lines = [
        f"bundle    {found.name} for robot '{found.robot}', {found.precision}, sha256 {found.sha256[:16]}",
        "hashes    ok",
        "contract  ok",
        "graphs    ok",
        f"parity    ok: largest difference {found.max_abs_diff:.3g} (at most {found.tolerance:g}), {found.ticks} ticks",
    ]
    if found.plans is not None:
        p = found.plans
        lines.append(
            f"plans     ok: the same at {p.same_share:.1%} of {p.ticks} ticks (at least {p.same_share_min:.0%}), "
            f"scores within {p.max_abs_diff:.3g} (at most {p.tolerance:g})"
        )
    lines.append(f"runs on   {found.runs_on}, one thread")
    for figures in found.providers:
        for name, wall, cpu in (
            ("step", figures.step_ms, figures.step_cpu_ms),
            ("plan", figures.plan_ms, figures.plan_cpu_ms),
        ):
            if wall is not None and cpu is not None:
                lines.append(
                    f"{name}      p50 {wall.p50:.2f} ms, p99 {wall.p99:.2f} ms, max {wall.max:.2f} ms; of the "
                    f"processor's time p50 {cpu.p50:.2f} ms, p99 {cpu.p99:.2f} ms "
                    f"({figures.provider}, n = {wall.count})"
                )
    return "\n".join(lines)
