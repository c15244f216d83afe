"""The command ``robonav``: a table of commands, each a module that is imported only when it is asked for.

Exit status: 0 success, 2 an error of input or machine (one line on stderr), 130 interrupted, 141 the reader of our
output went away. ROBONAV_TRACEBACK=1 shows where an error came from.
"""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Sequence

import robonav
from robonav.errors import RobonavError, nearest
from robonav.startup import check_shadowing, missing_dependency

# Command to its summary; its module is robonav.cli.<command> with main(argv) -> exit status.
COMMANDS = {
    "train": "train a world model and a policy in simulated scenes",
    "sb3": "train an opponent of Stable-Baselines3 (PPO, SAC) on the agent's observations",
    "sight": "train the network with which the planner sees who moves",
    "tune": "search a baseline's parameters on development scenes",
    "evaluate": "measure a policy on a suite of scenes, with intervals",
    "export": "make a deployment bundle (ONNX) of a checkpoint",
    "verify": "check a bundle: contract, hashes, and parity with its checkpoint",
    "run": "drive a robot to its goal with a bundle, and log it",
    "estop": "stop a robot that runs, and let it move again",
    "doctor": "check this computer before a robot drives",
    "keys": "who may connect to a robot: make, list and revoke keys",
    "replay": "infer a log's decisions again, and compare and draw them",
    "recover": "save what is whole of a truncated log",
    "dataset": "pass recorded episodes on as a Minari dataset",
    "bench": "measure speed on this machine",
    "scenes": "list, draw, check and export scenes",
    "walk": "film a robot that walks through a scene on its own legs",
}

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def usage() -> str:
    """The text of ``robonav --help``."""
    rows = "\n".join(f"  {name:<9} {summary}" for name, summary in COMMANDS.items())
    return f"""usage: robonav COMMAND [OPTIONS]

World-model navigation for legged robots.

commands:
{rows}

options:
  -h, --help     show this, or a command's own help with examples: robonav COMMAND --help
  -V, --version  show the version

example:
  robonav run --bundle policies/pretrained/quick --driver sim --scene office --log a.mcap
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv` (without the program's name) asks for, and returns the exit status."""
    try:
        status = _dispatch(argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("robonav: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _reader_is_gone():
            raise  # a pipe of our own: not the reader's doing
        return EXIT_BROKEN_PIPE
    except RobonavError as error:
        return _fail(error, error)
    except ModuleNotFoundError as error:
        known = missing_dependency(error)
        if known is None:
            raise
        return _fail(known, error)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}; check the path and its permissions", error)


def entry() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if argv else EXIT_ERROR
    if argv[0] in ("-V", "--version"):
        print(f"robonav {robonav.__version__}")
        return 0
    command = argv[0]
    if command not in COMMANDS:
        kind = "option" if command.startswith("-") else "command"
        raise RobonavError(f"unknown {kind} '{command}'; {nearest(command, COMMANDS)}; see 'robonav --help'")
    check_shadowing()
    module = importlib.import_module(f"robonav.cli.{command}")
    try:
        return int(module.main(list(argv[1:])))
    except SystemExit as stop:  # tyro leaves so after --help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _fail(line: object, error: BaseException) -> int:
    if os.environ.get("ROBONAV_TRACEBACK"):
        raise error
    print(f"robonav: error: {line}", file=sys.stderr)
    return EXIT_ERROR


def _reader_is_gone() -> bool:
    """Whether stdout's reader has gone; then it is pointed at nothing, so that Python's own flush stays quiet."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    gone = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
