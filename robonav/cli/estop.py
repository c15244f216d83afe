"""``robonav estop``: presses or re-arms the e-stop of a robot that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.errors import explain


@dataclass(frozen=True)
class EStopArgs:
    """Arguments of estop."""

    action: tyro.conf.Positional[Literal["press", "rearm", "state"]]
    """press stops the robot, and it stays stopped; rearm lets it move again; state shows how it is."""
    connect: str
    """Where 'robonav run --listen' listens: tcp://ADDRESS:PORT or ipc://PATH."""
    key: Path | None = None
    """File of 'robonav keys new'; needed for tcp."""
    reason: str = ""
    """press: what the log says about it."""
    timeout_s: float = 3.0
    """For the robot's answer."""


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when the robot has confirmed, 2 when it refused or did not answer."""
    description = "Stops a robot that runs, and lets it move again. Every key may press; observers may not re-arm."
    examples = [
        'robonav estop press --connect tcp://robot:5600 --key gate.key --reason "a person on the way"',
        "robonav estop rearm --connect tcp://robot:5600 --key gate.key",
    ]
    args = parse(EStopArgs, argv, "robonav estop", description, examples)
    if args.timeout_s <= 0:
        raise UsageError(explain("--timeout-s", "a number above 0", args.timeout_s))
    from deploy.keys import load_pair
    from deploy.remote import Remote
    from deploy.wire import TEXT_MAX

    with Remote(args.connect, None if args.key is None else load_pair(args.key)) as robot:
        if args.action == "press":
            robot.press(args.reason[:TEXT_MAX], args.timeout_s)
            print("e-stop latched: the robot stops and stays stopped until 'robonav estop rearm'")
        elif args.action == "rearm":
            robot.rearm(args.timeout_s)
            print("e-stop re-armed: the robot moves again at the next command")
        else:
            state = robot.connect(args.timeout_s)
            speed = f"{state.vx_mps:.2f}, {state.vy_mps:.2f} m/s, {state.yaw_rate_radps:.2f} rad/s"
            print(f"robot     {state.robot}, {'standing' if state.standing else 'not standing'}, let through {speed}")
            print(f"e-stop    {state.estop or 'not latched'}")
            print(f"lease     {state.holder or 'free'}")
            print(f"you       {state.name}, {state.role}")
    return 0
