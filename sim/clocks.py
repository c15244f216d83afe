"""Where the time goes: clocks round the calls of some methods while something runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any


def shares_of(parts: Mapping[str, tuple[Any, str]], run: Callable[[], object]) -> dict[str, float]:
    """The share of `run`'s time that each part takes, and what is left as "rest".

    `parts` are an object and the name of its method, which must not call each other.
    """
    taken = dict.fromkeys(parts, 0.0)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = call(*args, **kwargs)
            taken[name] += time.perf_counter() - begin
            return result

        return clocked

    for name, (owner, method) in parts.items():
        setattr(owner, method, timed(name, getattr(owner, method)))
    try:
        begin = time.perf_counter()
        run()
        whole_s = time.perf_counter() - begin
    finally:
        for owner, method in parts.values():
            delattr(owner, method)
    share = {name: value / whole_s for name, value in taken.items()}
    return share | {"rest": 1.0 - sum(share.values())}
