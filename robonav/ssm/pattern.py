"""The pattern string of a backbone: one letter a layer, groups and repetition, and the letters' meaning.

    pattern = item*;  item = (letter | "(" pattern ")") ["*" count]

``(MMMA)*3`` is ``MMMAMMMAMMMA`` and ``M*4`` is ``MMMM``. All digits behind a ``*`` belong to the count; blanks
separate, as in ``M*4 2`` (four Mamba-3 layers, then a Mamba-2 layer). Groups nest.
"""

from __future__ import annotations

from robonav.errors import ConfigError, explain

MLP = "-"
SHARED = "Z"
LETTERS = {
    "M": "Mamba-3",
    "R": "Mamba-3 MIMO",
    "2": "Mamba-2",
    "1": "Mamba-1",
    "S": "S4D",
    "D": "gated DeltaNet",
    "A": "attention",
    "P": "attention with rotary embedding",
    SHARED: "shared attention",
    "H": "parallel attention and SSM",
    "G": "GRU",
    "I": "memoryless",
    MLP: "SwiGLU",
}
MOST_LAYERS = 256  # a slip such as M*4000 is told instead of built
MOST_SIGNS = 256


def expand_pattern(text: str) -> str:
    """The pattern's letters without groups, counts and blanks.

    Raises:
        ConfigError: names the letter and its position, counted from 1, that does not fit.
    """
    if len(text) > MOST_SIGNS:
        raise ConfigError(explain("backbone.pattern", f"at most {MOST_SIGNS} signs", len(text)))
    letters, end = _items(text, 0, opened=None)
    assert end == len(text)
    if not letters.strip(MLP):
        raise _wrong(text, "a layer besides the MLPs" if letters else "a layer", "none" if letters else "empty")
    return letters


def with_mlps(letters: str, wanted: bool) -> str:
    """Puts an MLP behind every layer where the expanded pattern names none itself and `wanted` is true."""
    return "".join(letter + MLP for letter in letters) if wanted and MLP not in letters else letters


def describe_pattern(text: str) -> str:
    """The kinds of layers in order of appearance: ``Mamba-3, attention``."""
    return ", ".join(LETTERS[letter] for letter in dict.fromkeys(expand_pattern(text)) if letter != MLP)


def _items(text: str, at: int, opened: int | None) -> tuple[str, int]:
    """Letters from position `at` up to the end, or up to the bracket that closes the one at `opened`."""
    out = ""
    while at < len(text):
        sign = text[at]
        if sign == ")" and opened is not None:
            return out, at + 1
        if sign.isspace():
            at += 1
            continue
        if sign == "(":
            part, at = _items(text, at + 1, opened=at)
        elif sign in LETTERS:
            part, at = sign, at + 1
        else:
            raise _wrong(text, f"letters out of {''.join(LETTERS)}, groups and *count", f"unknown: {sign}", at)
        count, at = _count(text, at)
        if len(out) + len(part) * count > MOST_LAYERS:
            raise _wrong(text, f"at most {MOST_LAYERS} letters", "more", at - 1)
        out += part * count
    if opened is not None:
        raise _wrong(text, "a ) for every (", "an open (", opened)
    return out, at


def _count(text: str, at: int) -> tuple[int, int]:
    """The count behind a ``*`` at this position, else 1; and the position behind it."""
    if not text.startswith("*", at):
        return 1, at
    end = at + 1
    while end < len(text) and text[end] in "0123456789":
        end += 1
    digits = text[at + 1 : end]
    if not digits or int(digits) < 1:
        raise _wrong(text, "a count of at least 1 behind * (attention is the letter A)", f"'{digits}'", at)
    return int(digits), end


def _wrong(text: str, expected: str, got: str, at: int | None = None) -> ConfigError:
    place = "" if at is None else f" at position {at + 1}"
    return ConfigError(explain("backbone.pattern", expected, f"{text!r} ({got}{place})"))
