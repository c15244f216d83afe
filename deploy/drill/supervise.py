"""The drill's supervisor: a run of the drill's robot in a process of its own, so that it can be killed as well."""

from __future__ import annotations

import ctypes
import json
import signal
import sys

from deploy.config import DeployConfig
from deploy.supervisor import run
from robonav.config import from_mapping
from robonav.errors import RobonavError

PR_SET_PDEATHSIG = 1
DRIVER = "deploy.drill.robot:make_driver"


def main() -> int:
    """Reads what to run from standard input as JSON, and prints the report as JSON."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a drill that is killed takes its run with it
    order = json.loads(sys.stdin.read())
    config = from_mapping(DeployConfig, order["config"], "config")
    kwargs = {"folder": order["folder"], "robot": order["robot"]}
    try:
        report = run(order["bundle"], DRIVER, order["log"], driver_kwargs=kwargs, config=config)
    except RobonavError as error:
        print(json.dumps({"outcome": "not started", "detail": str(error)}))
        return 2
    print(json.dumps(report.to_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
