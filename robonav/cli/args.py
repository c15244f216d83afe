"""Command-line arguments as frozen dataclasses, parsed by tyro, with every mistake told in one line.

A command states its arguments as a frozen dataclass with one docstring a field::

    @dataclass(frozen=True)
    class RunArgs:
        bundle: Path
        \"\"\"Folder of the bundle.\"\"\"

    args = parse(RunArgs, argv, "robonav run", "Drives a robot.", ["robonav run --bundle policies/pretrained/quick"])
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from robonav.errors import RobonavError, explain, nearest

T = TypeVar("T")

MAX_RANGE = 10_000  # of whole numbers on the command line
_HELP_FLAGS = ("-h", "--help")


class UsageError(RobonavError):
    """Arguments that a command cannot read."""


def parse(
    cls: type[T],
    argv: Sequence[str],
    prog: str,
    description: str,
    examples: Sequence[str] = (),
    default: T | None = None,
) -> T:
    """Reads `argv` into the dataclass `cls`.

    Args:
        cls: frozen dataclass; fields become ``--kebab-case`` flags, `tyro.conf.Positional[...]` a place.
        argv: what stands after the command's name.
        prog: the command as it is typed, such as ``robonav run``.
        description: one or two sentences for ``--help``.
        examples: command lines that ``--help`` shows.
        default: an instance whose values stand where no flag does, for overrides of a loaded config.

    Raises:
        UsageError: unknown flag, missing or wrong value; one line with the nearest flag and where to look.
        SystemExit: with status 0 after ``--help``.
    """
    argv = list(argv)
    if any(word in _HELP_FLAGS for word in argv):
        argv = ["--help"]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            args = _tyro(cls, argv, prog, description, default)
        _refuse_nan(args, prog)
        return args
    except SystemExit as stop:
        if stop.code in (0, None):
            if examples:
                print("\nexamples:\n" + "\n".join(f"  {line}" for line in examples))
            raise
    raise UsageError(f"{_complaint(cls, argv, prog, description, default)}; see '{prog} --help'")


def comma_ints(text: str, flag: str) -> tuple[int, ...]:
    """Numbers of a comma-separated flag, with ranges: ``"1,2,5-7"`` is (1, 2, 5, 6, 7) and ``""`` is ().

    Raises:
        UsageError: something else stands there.
    """
    numbers: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not match:
            raise UsageError(explain(flag, "whole numbers as in 1,2,5-7", f"'{part}'"))
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(explain(flag, "a range that grows", f"'{part}'"))
        if last - first >= MAX_RANGE:
            raise UsageError(explain(flag, f"a range of at most {MAX_RANGE} numbers", f"'{part}'"))
        numbers.extend(range(first, last + 1))
    return tuple(numbers)


def _tyro(cls: type[T], argv: list[str], prog: str, description: str, default: T | None) -> T:
    options: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(cls, args=argv, prog=prog, description=description, **options)


def _refuse_nan(args: Any, prog: str, prefix: str = "--") -> None:
    """Raises UsageError where a float is NaN or infinite, which Python's own `float` reads from text."""
    for field in dataclasses.fields(args):
        value, flag = getattr(args, field.name), f"{prefix}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            _refuse_nan(value, prog, f"{flag}.")
        if any(
            isinstance(v, float) and not math.isfinite(v) for v in (value if isinstance(value, tuple) else (value,))
        ):
            raise UsageError(f"{explain(flag, 'a finite number', value)}; see '{prog} --help'")


def _complaint(cls: type[Any], argv: list[str], prog: str, description: str, default: Any) -> str:
    """The reason, in one line, why tyro refused `argv`."""
    known = _flags(cls, prog, description, default)
    for word in argv:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and len(flag) > 2 and flag.replace("_", "-") not in known:
            return f"unknown option '{flag}'; {nearest(flag, known)}"
    return _reduce(_printed(cls, argv, prog, description, default, columns=4000))  # long values stay whole


def _flags(cls: type[Any], prog: str, description: str, default: Any) -> set[str]:
    """All ``--flags`` of a dataclass, in kebab case, read from its help."""
    text = _printed(cls, ["--help"], prog, description, default, columns=100)  # wider, and flags stand side by side
    rows = (row.strip() for row in text.splitlines())
    names = (row.split("  ", 1)[0] for row in rows if row.startswith("-"))
    return {flag for name in names for flag in re.findall(r"--[a-zA-Z][\w.-]*", name)}


def _printed(cls: type[Any], argv: list[str], prog: str, description: str, default: Any, columns: int) -> str:
    """What tyro prints for `argv`, without colours (no terminal) and frames (no encoding)."""
    text = io.StringIO()
    with (
        contextlib.redirect_stdout(text),
        contextlib.redirect_stderr(text),
        _terminal_width(columns),
        contextlib.suppress(SystemExit),
    ):
        _tyro(cls, argv, prog, description, default)
    return text.getvalue()


def _reduce(message: str) -> str:
    """The first paragraph of tyro's message (a title, a rule, paragraphs between rules) as one line."""
    lines = list(itertools.takewhile(lambda row: set(row.strip()) != {"-"}, message.splitlines()[2:]))
    if lines and lines[0].strip().startswith("Missing from"):
        wanted = [row.strip() for row in lines[1:] if re.match(r" {6}\S", row)]  # their help stands deeper
        return "missing: " + ", ".join(wanted)
    text = " ".join(" ".join(lines).split()).rstrip(".")
    text = text.removeprefix("Error parsing ").replace("Could not find valid parse for arguments: ", "cannot read ")
    text = re.sub(r"invalid literal for int\(\) with base 10: (.+)", r"expected a whole number, got \1", text)
    text = re.sub(r"could not convert string to float: (.+)", r"expected a number, got \1", text)
    # Of a value that may be left out, the alternative None is no news to whoever typed one.
    text = re.sub(r"no type matching .* could be instantiated from .*<class '\w+'>: (?=expected)", "", text)
    text = text.replace("Unrecognized options:", "unexpected argument:").replace(". Expected ", ", expected ")
    text = text.replace("expected 1 values", "expected one")
    return (text[:1].lower() + text[1:]) if text else "the arguments cannot be read"


@contextlib.contextmanager
def _terminal_width(columns: int) -> Iterator[None]:
    """Lets tyro write as for a terminal of this width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
