"""Arrays and words in one compact block: a length, a JSON header, then the arrays, all of it gzipped.

The page reads it with DecompressionStream. Little-endian; every array starts at a multiple of 8 bytes. An integer array
may be stored as differences along its first axis (modulo its width), which gzip packs better.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robonav.errors import LogError, explain

DTYPES = {"float32": "f4", "int32": "i4", "uint32": "u4", "int16": "i2", "uint16": "u2", "int8": "i1", "uint8": "u1"}
LEVEL = 6  # of gzip; 9 takes four times as long for 2 %


def pack(
    meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], differences: frozenset[str] = frozenset()
) -> bytes:
    """One block.

    Args:
        meta: JSON values; NaN is refused.
        arrays: by name, of one of DTYPES.
        differences: names of integer arrays that are stored as differences.

    Raises:
        LogError: an array of another type.
    """
    table: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, values in arrays.items():
        if values.dtype.name not in DTYPES:
            raise LogError(explain(f"page: {name}", f"one of {', '.join(DTYPES)}", values.dtype.name))
        as_differences = name in differences and len(values) > 1
        stored = np.ascontiguousarray(_differences(values) if as_differences else values)
        data = stored.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
        data += b"\0" * (-len(data) % 8)
        table[name] = {"dtype": DTYPES[values.dtype.name], "shape": list(values.shape), "at": offset}
        if as_differences:
            table[name]["differences"] = True
        parts.append(data)
        offset += len(data)
    header = json.dumps({"meta": meta, "arrays": table}, allow_nan=False, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 4) % 8)
    return gzip.compress(b"".join([struct.pack("<I", len(header)), header, *parts]), LEVEL, mtime=0)


def unpack(block: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What was packed: words and arrays. The page's own reader is in ``static/data.js``."""
    raw = gzip.decompress(block)
    (length,) = struct.unpack_from("<I", raw)
    header = json.loads(raw[4 : 4 + length])
    kinds = {short: name for name, short in DTYPES.items()}
    arrays = {}
    for name, entry in header["arrays"].items():
        dtype, shape = np.dtype(kinds[entry["dtype"]]), tuple(entry["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        values = np.frombuffer(raw, dtype.newbyteorder("<"), count, 4 + length + entry["at"]).reshape(shape)
        arrays[name] = np.cumsum(values, axis=0, dtype=dtype) if entry.get("differences") else values.astype(dtype)
    return header["meta"], arrays


def _differences(values: NDArray[Any]) -> NDArray[Any]:
    out = values.copy()
    out[1:] -= values[:-1]  # modulo the width
    return out


def whole(values: NDArray[Any], scale: float, dtype: type[Any]) -> NDArray[Any]:
    """Numbers as whole multiples of `scale`, clipped to what the type holds; NaN becomes 0."""
    info = np.iinfo(dtype)
    scaled = np.nan_to_num(np.asarray(values, np.float64), nan=0.0) / scale
    return np.clip(np.rint(scaled), info.min, info.max).astype(dtype)
