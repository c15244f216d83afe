"""One family of errors for everything that a user can cause.

A `RobonavError` says in one line where, what was expected, what came and what to do. The command line prints
that line and exits with status 2; a traceback is left for our own mistakes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobonavError(Exception):
    """Base of all errors that a user's input or machine can cause. The text is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(RobonavError):
    """A configuration file, key or value that does not fit."""


class ShapeError(RobonavError):
    """An array of another shape or kind than the contract states."""


class SceneError(RobonavError):
    """A scene or map that cannot be loaded, or in which the task is impossible."""


class PolicyError(RobonavError):
    """An unknown policy, or one that does not fit the robot."""


class CheckpointError(RobonavError):
    """A checkpoint that is missing, damaged, or was written with another configuration."""


class BundleError(RobonavError):
    """A deployment bundle whose contract, hash or parity fails."""


class LogError(RobonavError):
    """A log that is no MCAP file, is damaged, or cannot be written."""


class LinkError(RobonavError):
    """A transport problem: a port or path in use, a peer of another version."""


class WireError(RobonavError):
    """Bytes on the wire that are no message of ours."""


class MissingDependencyError(RobonavError):
    """An optional package that this command needs is not installed."""


def explain(where: str, expected: object, got: object, do: str = "") -> str:
    """The project's one-line form of an error: ``where: expected X, got Y; do Z``."""
    line = f"{where}: expected {expected}, got {got}"
    return f"{line}; {do}" if do else line


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or lists what is known.

    >>> nearest("rooom", ["rooms", "barn"])
    "did you mean 'rooms'?"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
