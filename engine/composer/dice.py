"""Seeded randomness that does not depend on who asked first."""

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Dice = np.random.Generator
T = TypeVar("T")


def dice(seed: int, label: str) -> Dice:
    """A generator of its own for each label: a new question never changes the older answers."""
    return np.random.default_rng([seed & 0xFFFF_FFFF_FFFF_FFFF, zlib.crc32(label.encode())])


def pick(rng: Dice, options: Sequence[T]) -> T:
    """One of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]
