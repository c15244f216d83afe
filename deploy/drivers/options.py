"""A driver's own options on the command line: words KEY=VALUE, values in JSON's notation where they can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from robonav.errors import ConfigError, explain


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """``["goal_m=[3,1]", "interface=eth0"]`` to ``{"goal_m": [3, 1], "interface": "eth0"}``.

    Raises:
        ConfigError: a word without a name and '=', or a name that comes twice.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(explain("driver option", "KEY=VALUE", f"'{word}'"))
        if key in options:
            raise ConfigError(explain("driver option", f"'{key}' once", "twice"))
        try:
            options[key] = json.loads(text)
        except json.JSONDecodeError:
            options[key] = text
    return options
