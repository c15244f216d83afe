"""Entry of a run's processes: ``python -m deploy.processes ROLE``, with the order as JSON on standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from deploy.station import Order, Station, leave_error
from robonav.config import from_mapping

ROLES = ("recorder", "driver", "governor", "navigator")


def _body(role: str) -> Callable[[Station], None]:
    """The role's function; imported here, so that the governor loads no onnxruntime."""
    if role == "recorder":
        from deploy.recorder import run_recorder

        return run_recorder
    if role == "driver":
        from deploy.driver_process import run_driver

        return run_driver
    if role == "governor":
        from deploy.governor_process import run_governor

        return run_governor
    from deploy.navigator import run_navigator

    return run_navigator


def main(argv: Sequence[str]) -> int:
    """Runs one process to its end; the exit status is 0 only when it ended as it should."""
    role = argv[0]
    order = from_mapping(Order, json.loads(sys.stdin.buffer.read()), role)
    sys.stdin.close()
    try:
        with Station(role, order) as station:
            try:
                _body(role)(station)
            except BaseException as error:
                station.event("failed", f"{role}: {type(error).__name__}: {error}")
                raise
    except Exception as error:  # noqa: BLE001  an unexpected error of a process ends here, with its place
        leave_error(order, role, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
