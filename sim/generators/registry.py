"""The generators by name, as the `kind` of a scene file."""

from __future__ import annotations

from robonav.errors import SceneError, nearest
from sim.generators import blocked, clutter, corridors, maze, offices, rooms, tmaze, warehouse
from sim.generators.base import Generator

GENERATORS = {
    "rooms": Generator(rooms.RoomsConfig, rooms.draw, 0x726F6F6D),
    "corridors": Generator(corridors.CorridorsConfig, corridors.draw, 0x636F7272),
    "offices": Generator(offices.OfficesConfig, offices.draw, 0x6F666669),
    "warehouse": Generator(warehouse.WarehouseConfig, warehouse.draw, 0x77617265),
    "maze": Generator(maze.MazeConfig, maze.draw, 0x6D617A65),
    "clutter": Generator(clutter.ClutterConfig, clutter.draw, 0x636C7574),
    "tmaze": Generator(tmaze.TMazeConfig, tmaze.draw, 0x746D617A),
    "blocked": Generator(blocked.BlockedConfig, blocked.draw, 0x626C6F63),
}
KINDS = ("map", "crowd", *GENERATORS)


def generator_of(kind: str, where: str) -> Generator:
    """The generator of that name.

    Raises:
        SceneError: there is none; the message names the nearest.
    """
    if kind not in GENERATORS:
        raise SceneError(f"{where}: unknown kind '{kind}'; {nearest(kind, KINDS)}")
    return GENERATORS[kind]
