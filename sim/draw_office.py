"""Draws the office map that the repository ships: ``python -m sim.draw_office [FOLDER]``.

14 x 10 m at 5 cm a cell: a corridor along the middle, three rooms on either side, doors of 1.2 m, desks and shelves.
The picture is drawn by this script so that its licence is ours and every measure is known.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robonav.config import config_dir
from robonav.files import atomic_path, write_text_atomic

RESOLUTION_M = 0.05
SIZE_M = (14.0, 10.0)
WALL_M = 0.15
# x0, y0, x1, y1 in metres; doors are the gaps between the pieces.
WALLS_M = (
    (0.0, 0.0, 14.0, WALL_M),
    (0.0, 10.0 - WALL_M, 14.0, 10.0),
    (0.0, 0.0, WALL_M, 10.0),
    (14.0 - WALL_M, 0.0, 14.0, 10.0),
    # south side of the corridor, y = 4.1: doors at x 3.0-4.2, 7.8-9.0, 10.4-11.6
    (0.0, 4.1, 3.0, 4.25),
    (4.2, 4.1, 7.8, 4.25),
    (9.0, 4.1, 10.4, 4.25),
    (11.6, 4.1, 14.0, 4.25),
    # north side, y = 5.75: doors at x 1.2-2.4, 6.2-7.4, 11.8-13.0
    (0.0, 5.75, 1.2, 5.9),
    (2.4, 5.75, 6.2, 5.9),
    (7.4, 5.75, 11.8, 5.9),
    (13.0, 5.75, 14.0, 5.9),
    # between the rooms
    (4.8, 0.0, 4.95, 4.1),
    (9.4, 0.0, 9.55, 4.1),
    (4.4, 5.9, 4.55, 10.0),
    (9.2, 5.9, 9.35, 10.0),
)
FURNITURE_M = (
    (0.6, 2.6, 1.3, 3.6),  # south-west: a desk, a long desk, a shelf
    (2.2, 0.15, 4.0, 0.85),
    (0.15, 1.2, 0.5, 2.2),
    (5.4, 1.6, 6.8, 2.4),  # south: a meeting table and a cupboard
    (8.9, 0.4, 9.4, 1.8),
    (10.0, 0.6, 11.4, 1.3),  # south-east: two desks
    (12.7, 1.9, 13.4, 3.3),
    (0.15, 8.9, 1.9, 9.6),  # north-west: desks
    (3.5, 6.9, 4.4, 8.3),
    (5.0, 8.2, 6.0, 9.0),  # north: a sofa corner
    (8.0, 6.6, 8.7, 7.9),
    (9.8, 7.6, 11.0, 8.3),  # north-east: desks
    (12.9, 8.2, 13.6, 9.6),
    (5.0, 5.35, 5.7, 5.75),  # corridor: a cabinet and a plant
    (9.6, 4.25, 10.0, 4.6),
)
YAML = f"""image: office.png
resolution: {RESOLUTION_M}
origin: [0.0, 0.0, 0.0]
occupied_thresh: 0.65
free_thresh: 0.196
negate: 0
mode: trinary
"""


def draw() -> NDArray[np.uint8]:
    """(rows, columns) grey picture, 0 occupied and 254 free, row 0 at the highest y."""
    rows, columns = round(SIZE_M[1] / RESOLUTION_M), round(SIZE_M[0] / RESOLUTION_M)
    image = np.full((rows, columns), 254, np.uint8)
    for box in (*WALLS_M, *FURNITURE_M):
        x0, y0, x1, y1 = (round(v / RESOLUTION_M) for v in box)
        image[y0:y1, x0:x1] = 0
    return np.ascontiguousarray(image[::-1])


def main(argv: list[str]) -> int:
    """Writes office.png and office.yaml into a folder, by default the presets' own."""
    import cv2

    folder = Path(argv[0]) if argv else config_dir() / "scenes" / "office"
    with atomic_path(folder / "office.png") as aside:
        cv2.imwrite(str(aside), draw())
    write_text_atomic(folder / "office.yaml", YAML)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
