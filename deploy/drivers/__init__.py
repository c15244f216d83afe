"""Drivers of robots, real and imagined, behind `robonav.types.Driver`, and their short names.

`python -m deploy.drivers.conformance NAME` says of any of them whether it keeps to the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.drivers.options import parse_options
from deploy.drivers.point import NullDriver, PointDriver, room_scan
from robonav.errors import LinkError, nearest

__all__ = ["DRIVERS", "DriverEntry", "NullDriver", "PointDriver", "find_driver", "parse_options", "room_scan"]


@dataclass(frozen=True, slots=True)
class DriverEntry:
    """A driver that has a name. What it is made by is imported in the driver's process only."""

    factory: str
    """"module:function" that takes `robot` and the driver's own options."""
    in_scene: bool = False
    """It takes a scene and a seed: a simulator."""
    about: str = ""
    """In a few words, for help and errors."""


DRIVERS = {
    "sim": DriverEntry("sim.driver:make_driver", True, "simulator, kinematic or on legs"),
    "point": DriverEntry("deploy.drivers.point:PointDriver", about="a disc in an empty room"),
    "null": DriverEntry("deploy.drivers.point:NullDriver", about="stands still"),
    "log": DriverEntry("deploy.drivers.replayed:ReplayedLogDriver", about="what a log recorded, once more"),
    "go2": DriverEntry("deploy.drivers.go2:Go2Driver", about="Unitree Go2 in sport mode, over DDS"),
}


def find_driver(name: str) -> DriverEntry:
    """A driver by its name, or "module:function" as it is.

    Raises:
        LinkError: there is none of that name.
    """
    if ":" in name:
        return DriverEntry(name)
    if name not in DRIVERS:
        raise LinkError(f"unknown driver '{name}'; {nearest(name, DRIVERS)}, or module:factory")
    return DRIVERS[name]
