"""Rows of bits, 64 cells a word, and lines over them, compiled.

The lines go through the very pixels of OpenCV 5's ``line`` of type LINE_8 (Bresenham, left to right, clipped to the
image), since the maps made here are the same as those of `robonav.mapping`, which draws with OpenCV.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sim.analytic.jit import inner

Array = np.ndarray[Any, Any]
WORD = 64
_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


if TYPE_CHECKING:

    def trailing_zeros(word: Any) -> int:
        """Index of the lowest bit that is set; 64 for 0."""

    def leading_zeros(word: Any) -> int:
        """63 less the index of the highest bit that is set; 64 for 0."""

    def int64(value: Any) -> int:
        """A whole number of 64 bits; of a float what is before the point."""

else:
    int64 = np.int64

    @intrinsic
    def trailing_zeros(typing_context, word):  # noqa: D103
        def codegen(context, builder, signature, args):
            return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.uint64), codegen

    @intrinsic
    def leading_zeros(typing_context, word):  # noqa: D103
        def codegen(context, builder, signature, args):
            return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.uint64), codegen


@inner
def bit(column: int) -> Any:
    """The word of which only this column's bit is set."""
    return _ONE << np.uint64(column & 63)


@inner
def bits_from(column: int) -> Any:
    """The word of which the bits of this column and of all above it are set."""
    return _ALL << np.uint64(column & 63)


@inner
def filled_to_right(word: Any) -> Any:
    """Each bit becomes the parity of itself and all bits below it: between two edges everything is set."""
    word ^= word << np.uint64(1)
    word ^= word << np.uint64(2)
    word ^= word << np.uint64(4)
    word ^= word << np.uint64(8)
    word ^= word << np.uint64(16)
    return word ^ (word << np.uint64(32))


@inner
def quotient(a: int, b: int) -> int:
    """a / b towards zero, as in C."""
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


@inner
def _side(x: int, y: int, right: int, bottom: int) -> int:
    return (1 if x < 0 else 0) | (2 if x > right else 0) | (4 if y < 0 else 0) | (8 if y > bottom else 0)


@inner
def clipped(x0: int, y0: int, x1: int, y1: int, width: int, height: int) -> tuple[bool, int, int, int, int]:
    """Whether anything of a line lies inside the image, and the ends of that part (Cohen and Sutherland)."""
    right, bottom = width - 1, height - 1
    a, b = _side(x0, y0, right, bottom), _side(x1, y1, right, bottom)
    if (a & b) == 0 and (a | b) != 0:
        if a & 12:
            edge = 0 if a < 8 else bottom
            x0, y0 = x0 + quotient((edge - y0) * (x1 - x0), y1 - y0), edge
            a = _side(x0, 0, right, bottom)
        if b & 12:
            edge = 0 if b < 8 else bottom
            x1, y1 = x1 + quotient((edge - y1) * (x1 - x0), y1 - y0), edge
            b = _side(x1, 0, right, bottom)
        if (a & b) == 0 and (a | b) != 0:
            if a:
                edge = 0 if a == 1 else right
                x0, y0, a = edge, y0 + quotient((edge - x0) * (y1 - y0), x1 - x0), 0
            if b:
                edge = 0 if b == 1 else right
                x1, y1, b = edge, y1 + quotient((edge - x1) * (y1 - y0), x1 - x0), 0
    return (a | b) == 0, x0, y0, x1, y1


@inner
def line_cells(x0: int, y0: int, x1: int, y1: int, width: int, height: int, cells: Array) -> int:
    """Writes the (column, row) pairs of a line into `cells` (n, 2), as far as they lie in the image; their number."""
    if min(x0, x1, y0, y1) < 0 or max(x0, x1) >= width or max(y0, y1) >= height:
        inside, x0, y0, x1, y1 = clipped(x0, y0, x1, y1, width, height)
        if not inside:
            return 0
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy, down = x1 - x0, abs(y1 - y0), 1 if y1 >= y0 else -1
    steep = dy > dx
    long, short = (dy, dx) if steep else (dx, dy)
    error = long - 2 * short
    for i in range(long + 1):
        cells[i, 0], cells[i, 1] = x0, y0
        if error < 0:
            error += 2 * long
            x0, y0 = x0 + 1, y0 + down
        elif steep:
            y0 += down
        else:
            x0 += 1
        error -= 2 * short
    return long + 1


@inner
def erase_line(rows: Array, x0: int, y0: int, x1: int, y1: int, left: int, low: int, right: int, high: int) -> None:
    """Clears the bits of a line's cells that lie in columns left to right - 1 and rows low to high - 1."""
    if min(x0, x1) < left or min(y0, y1) < low or max(x0, x1) >= right or max(y0, y1) >= high:
        inside, x0, y0, x1, y1 = clipped(x0 - left, y0 - low, x1 - left, y1 - low, right - left, high - low)
        if not inside:
            return
        x0, y0, x1, y1 = x0 + left, y0 + low, x1 + left, y1 + low
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    dx, dy, down = x1 - x0, abs(y1 - y0), 1 if y1 >= y0 else -1
    steep = dy > dx
    long, short = (dy, dx) if steep else (dx, dy)
    error = long - 2 * short
    for _ in range(long + 1):
        rows[y0, x0 >> 6] &= ~bit(x0)
        if error < 0:
            error += 2 * long
            x0, y0 = x0 + 1, y0 + down
        elif steep:
            y0 += down
        else:
            x0 += 1
        error -= 2 * short
