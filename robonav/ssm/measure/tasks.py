"""Sequence tasks that tell memories apart, as batches of tokens drawn from a seeded generator.

    parity      is the number of ones odd? (state tracking: a group of two elements)
    modular     sums and differences modulo 5 (a cyclic group of five)
    arithmetic  the same with products, which bind stronger; without brackets
    recall      key-value pairs, then keys in another order: their values (multi-query associative recall)
    copying     a few data tokens somewhere among blanks, to be repeated in order at the end
    cue         a cue at the start, distractors for `length` steps, then a junction that asks for the cue (T-maze)

Every class is as frequent as every other among the answers that are scored when `balanced` batches are asked for, so
that guessing scores `chance`.

Shape letters: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Sequences of one length."""

    tokens: Tensor  # (B, T) integers below the task's `inputs`
    target: Tensor  # (B, T) class wanted at each step, below the task's `classes`; 0 where none is
    asked: Tensor  # (B, T) true where training asks for the target
    scored: Tensor  # (B, T) true where accuracy counts it, a part of `asked`


class Task(Protocol):
    """What a probe is trained and tested on."""

    @property
    def inputs(self) -> int:
        """Kinds of tokens."""
        ...

    @property
    def classes(self) -> int:
        """Kinds of answers."""
        ...

    @property
    def chance(self) -> float:
        """Accuracy of guessing on a balanced batch."""
        ...

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`count` sequences; what `length` counts is the task's own."""
        ...


@dataclass(frozen=True)
class Parity:
    """Start token, then `length` bits; asked after each bit: are the ones so far odd? Scored after the last one.

    The share of ones is drawn a sequence, in a balanced batch it is one half.
    """

    inputs: int = 3
    classes: int = 2
    chance: float = 1 / 2

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`length` is the number of bits."""

        def draw(rows: int) -> tuple[Tensor, Tensor]:
            share = torch.full((rows, 1), 0.5) if balanced else torch.rand(rows, 1, generator=generator)
            bits = (torch.rand(rows, length, generator=generator) < share).long()
            return bits, bits.cumsum(1) % 2

        bits, odd = _balanced(draw, count, self.classes) if balanced else draw(count)
        return _running(bits, odd, torch.ones_like(bits, dtype=torch.bool), start=2)


@dataclass(frozen=True)
class Arithmetic:
    """Start token, then numbers below `modulus` and operators in turn; asked after each number: the value so far.

    Scored after the last number. Operators are + and -, and with `products` also *, which binds stronger: the state is
    then the sum of the closed terms and the open term.
    """

    products: bool = False
    modulus: int = 5

    @property
    def inputs(self) -> int:
        """Numbers, three operators, start."""
        return self.modulus + 4

    @property
    def classes(self) -> int:
        """One a remainder."""
        return self.modulus

    @property
    def chance(self) -> float:
        """One remainder in `modulus`."""
        return 1 / self.modulus

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`length` is the number of numbers and operators; an even one loses its last operator."""
        numbers = (length + 1) // 2

        def draw(rows: int) -> tuple[Tensor, Tensor]:
            number = torch.randint(self.modulus, (rows, numbers), generator=generator)
            operator = torch.randint(3 if self.products else 2, (rows, numbers), generator=generator)  # before it
            operator[:, 0] = 0
            closed, term = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
            values = []
            for now, sign in zip(number.unbind(1), operator.unbind(1), strict=True):
                times = sign == 2
                closed = torch.where(times, closed, closed + term)
                term = torch.where(times, term * now, torch.where(sign == 1, -now, now)) % self.modulus
                values.append((closed + term) % self.modulus)
            tokens = torch.stack([operator + self.modulus, number], dim=-1).flatten(1)[:, 1:]
            return tokens, torch.stack(values, 1).repeat_interleave(2, 1)[:, 1:]

        tokens, value = _balanced(draw, count, self.classes) if balanced else draw(count)
        return _running(tokens, value, tokens < self.modulus, start=self.modulus + 3)


@dataclass(frozen=True)
class Recall:
    """`length` pairs of a key and its value, a separator, then every key once in another order: its value is asked.

    Keys of a sequence differ; values are drawn freely, so that classes are balanced on average.
    """

    keys: int = 64
    values: int = 16

    @property
    def inputs(self) -> int:
        """Keys, values, separator."""
        return self.keys + self.values + 1

    @property
    def classes(self) -> int:
        """One a value."""
        return self.values

    @property
    def chance(self) -> float:
        """One value in all."""
        return 1 / self.values

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`length` is the number of pairs, at most the number of keys."""
        key = torch.rand(count, self.keys, generator=generator).argsort(1)[:, :length]
        value = torch.randint(self.values, (count, length), generator=generator)
        order = torch.rand(count, length, generator=generator).argsort(1)
        pairs = torch.stack([key, value + self.keys], dim=-1).flatten(1)  # (B, 2 length)
        separator = torch.full((count, 1), self.inputs - 1)
        tokens = torch.cat([pairs, separator, key.gather(1, order)], dim=1)
        return _at_the_end(tokens, value.gather(1, order))


@dataclass(frozen=True)
class Copying:
    """`length` steps, blank but for `items` data tokens at random places, then `items` prompts: the data in order."""

    items: int = 6
    symbols: int = 8

    @property
    def inputs(self) -> int:
        """Data, blank, prompt."""
        return self.symbols + 2

    @property
    def classes(self) -> int:
        """One a symbol."""
        return self.symbols

    @property
    def chance(self) -> float:
        """One symbol in all."""
        return 1 / self.symbols

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`length` is the number of steps before the prompts, at least `items`."""
        data = torch.randint(self.symbols, (count, self.items), generator=generator)
        place = torch.rand(count, length, generator=generator).argsort(1)[:, : self.items].sort(1).values
        context = torch.full((count, length), self.symbols).scatter(1, place, data)
        prompts = torch.full((count, self.items), self.symbols + 1)
        return _at_the_end(torch.cat([context, prompts], dim=1), data)


@dataclass(frozen=True)
class Cue:
    """A cue (left or right), `length` random distractors, and a junction, where the cue is asked for."""

    distractors: int = 4
    cues: int = 2

    @property
    def inputs(self) -> int:
        """Cues, distractors, junction."""
        return self.cues + self.distractors + 1

    @property
    def classes(self) -> int:
        """One a cue."""
        return self.cues

    @property
    def chance(self) -> float:
        """One cue in all."""
        return 1 / self.cues

    def batch(self, count: int, length: int, generator: torch.Generator, balanced: bool = False) -> Batch:
        """`length` is the delay: the number of distractors between cue and junction."""

        def draw(rows: int) -> tuple[Tensor, Tensor]:
            cue = torch.randint(self.cues, (rows, 1), generator=generator)
            return cue, cue

        cue, _ = _balanced(draw, count, self.classes) if balanced else draw(count)
        noise = torch.randint(self.distractors, (count, length), generator=generator) + self.cues
        return _at_the_end(torch.cat([cue, noise, torch.full((count, 1), self.inputs - 1)], dim=1), cue)


TASKS: dict[str, Task] = {
    "parity": Parity(),
    "modular": Arithmetic(),
    "arithmetic": Arithmetic(products=True),
    "recall": Recall(),
    "copying": Copying(),
    "cue": Cue(),
}


def _balanced(draw: Callable[[int], tuple[Tensor, Tensor]], count: int, classes: int) -> tuple[Tensor, Tensor]:
    """Draws until each class has its share of `count` as the last label (shares differ by one at most).

    `draw(rows)` returns tokens and labels, (rows, T) each. What is kept of a class is drawn as `draw` does.
    """
    order = torch.arange(count) % classes  # the class wanted in each row
    rows = torch.full((count,), -1)
    tokens, labels = draw(0)
    while bool((rows < 0).any()):
        more_tokens, more_labels = draw(2 * count + 8 * classes)
        tokens, labels = torch.cat([tokens, more_tokens]), torch.cat([labels, more_labels])
        for value in range(classes):
            found = (labels[:, -1] == value).nonzero()[:, 0]
            places = (order == value).nonzero()[:, 0]
            enough = min(len(found), len(places))
            rows[places[:enough]] = found[:enough]
    return tokens[rows], labels[rows]


def _running(tokens: Tensor, target: Tensor, asked: Tensor, start: int) -> Batch:
    """A start token before sequences (B, T) that are asked along the way and scored after the last token."""
    first = torch.full_like(tokens[:, :1], start)
    no = torch.zeros_like(asked[:, :1])
    scored = torch.zeros_like(asked)
    scored[:, -1] = True
    return Batch(
        torch.cat([first, tokens], dim=1),
        torch.cat([torch.zeros_like(first), target * asked], dim=1),
        torch.cat([no, asked], dim=1),
        torch.cat([no, scored], dim=1),
    )


def _at_the_end(tokens: Tensor, answers: Tensor) -> Batch:
    """Sequences (B, T) whose last steps ask for the answers (B, A)."""
    asked = torch.zeros_like(tokens, dtype=torch.bool)
    asked[:, tokens.shape[1] - answers.shape[1] :] = True
    target = torch.zeros_like(tokens)
    target[asked] = answers.flatten()
    return Batch(tokens, target, asked, asked)
