"""``robonav estop``: presses, re-arms or holds the e-stop of a robot that runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from robonav.cli.args import UsageError, parse
from robonav.errors import LinkError, explain

if TYPE_CHECKING:
    from deploy.remote import Remote

HOLD_PERIOD_S = 0.2


@dataclass(frozen=True)
class EStopArgs:
    """Arguments of estop."""

    action: tyro.conf.Positional[Literal["press", "rearm", "hold", "state"]]
    """press stops the robot, and it stays stopped; rearm lets it move again; hold keeps the link that a robot with
    operator.estop_link = "required" needs to move, until Ctrl-C; state shows how it is."""
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
        "robonav estop hold --connect tcp://robot:5600 --key gate.key",
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
        elif args.action == "hold":
            _hold(robot, args.timeout_s)
        else:
            _show(robot, args.timeout_s)
    return 0


def _hold(robot: Remote, timeout_s: float) -> None:
    """Holds the link until Ctrl-C, and says what becomes of the e-stop.

    Raises:
        LinkError: the robot does not answer, did not for a while, or refuses this key.
    """
    state = robot.connect(timeout_s)
    print(f"holding the e-stop link of {state.robot} as {state.name}; Ctrl-C lets go, and the robot stops", flush=True)
    estop, heard_s, sequence, held_s = "", time.monotonic(), -1, 0.0
    try:
        while time.monotonic() - heard_s < timeout_s:
            if time.monotonic() - held_s >= HOLD_PERIOD_S and robot.hold():
                held_s = time.monotonic()
            robot.poll(int(HOLD_PERIOD_S * 1e9 / 4))
            for answer in robot.answers().values():
                if not answer.accepted:
                    raise LinkError(f"{robot.address}: {answer.reason}")
            if robot.state is not None and robot.state.sequence != sequence:
                heard_s, sequence = time.monotonic(), robot.state.sequence
                if robot.state.estop != estop:
                    estop = robot.state.estop
                    print(f"e-stop    {estop or 'not latched'}", flush=True)
    except KeyboardInterrupt:
        print("let go: a robot that needs the link stops")
        return
    raise LinkError(f"{robot.address}: silent for {timeout_s:g} s")


def _show(robot: Remote, timeout_s: float) -> None:
    state = robot.connect(timeout_s)
    speed = f"{state.vx_mps:.2f}, {state.vy_mps:.2f} m/s, {state.yaw_rate_radps:.2f} rad/s"
    print(f"robot     {state.robot}, {'standing' if state.standing else 'not standing'}, let through {speed}")
    print(f"e-stop    {state.estop or 'not latched'}")
    print(f"lease     {state.holder or 'free'}")
    print(f"you       {state.name}, {state.role}")
