"""``robonav verify``: checks a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from robonav.cli.args import parse


@dataclass(frozen=True)
class VerifyArgs:
    """Arguments of verify."""

    bundle: tyro.conf.Positional[Path]
    """Folder of the bundle, or a name under policies/pretrained."""
    json: bool = False
    """Print the findings as JSON."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 only if hashes, contract, graph and parity hold."""
    description = (
        "Checks a bundle: files, hashes, contract against graph, 200 ticks against torch's recorded answers, latency."
    )
    args = parse(VerifyArgs, argv, "robonav verify", description, ["robonav verify policies/pretrained/quick"])
    from deploy.bundle import find_bundle
    from deploy.verify import verify

    found = verify(find_bundle(args.bundle))
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0
    step = found.step_ms
    print(f"bundle    {found.name} for robot '{found.robot}', sha256 {found.sha256[:16]}")
    print("hashes    ok\ncontract  ok\ngraph     ok")
    print(
        f"parity    ok: largest difference {found.max_abs_diff:.3g} (at most {found.tolerance:g}), {found.ticks} ticks"
    )
    print(f"step      p50 {step.p50:.2f} ms, p99 {step.p99:.2f} ms, max {step.max:.2f} ms (onnxruntime, one thread)")
    return 0
