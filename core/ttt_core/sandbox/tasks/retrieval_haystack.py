"""What needles are hidden in, and how they are laid out in it.

The haystack of a shorter document is the beginning of a longer one's, and each needle stays at its
relative depth, so that documents of one seed differ only in how much there is between needles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from random import Random
from typing import Literal, NamedTuple, get_args

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError
from ttt_core.sandbox.words import adjectives, nouns, places

Haystack = Literal["noise", "needles", "text"]
"""`noise`: five sentences over and over, as in RULER. `needles`: only needles that are not asked
for. `text`: generated sentences that look like English and hold no digits; RULER has essays there,
which are not ours to bundle."""

NOISE = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
"""RULER's (`scripts/data/synthetic/niah.py` of NVIDIA/RULER, Hsieh et al. 2024)."""

_PATTERNS = (
    "In {place} the {adjective} {noun} stood beside the {other} for most of the winter.",
    "Nobody could say why the {noun} near {place} had always been so {adjective}.",
    "People carried the {noun} and the {other} down to the river below {place}.",
    "When the rain stopped, the {adjective} {noun} was still waiting in {place}.",
    "She had seen one {noun} before, but never such {adjective} company as the {other}.",
    "It took them three days to bring the {adjective} {noun} back from {place}.",
    "He wrote a long letter about the {noun}, the {other} and the streets of {place}.",
    "The story of the {adjective} {noun} is still told by the people of {place}.",
    "Under the old bridge of {place} lay the {noun} that the {other} had lost.",
    "They agreed that the {other} should stay, and that the {adjective} {noun} should go.",
)


class Needle(NamedTuple):
    """A line to be hidden, and where.

    Attributes:
        text: The line, verbatim.
        depth: How far into the haystack, from 0 (its beginning) to 1.
    """

    text: str
    depth: float


def check_haystack(haystack: str) -> None:
    """Raise a ConfigError if there is no such haystack."""
    if haystack not in get_args(Haystack):
        raise ConfigError(unknown_name("haystack", haystack, get_args(Haystack), "haystacks"))


def filler(haystack: Literal["noise", "text"], rng: Random) -> Iterator[str]:
    """Yield sentences that answer nothing, without end."""
    if haystack == "noise":
        yield from cycle(NOISE)
    while True:
        noun, other = rng.sample(nouns(), 2)
        yield rng.choice(_PATTERNS).format(
            adjective=rng.choice(adjectives()), noun=noun, other=other, place=rng.choice(places())
        )


def take_words(lines: Iterable[str], words: int) -> list[str]:
    """Take lines from the beginning while they have at most `words` words together."""
    taken: list[str] = []
    for line in lines:
        words -= count_words(line)
        if words < 0:
            break
        taken.append(line)
    return taken


def count_words(line: str) -> int:
    """Return how many words there are between white space."""
    return len(line.split())


def lay_out(needles: Sequence[Needle], hay: Sequence[str], haystack: Haystack) -> str:
    """Write the document: the hay evenly spaced, each needle at its depth.

    Needles at one depth keep their order. Generated text is one paragraph; the other haystacks are
    lines, as in RULER.
    """
    spaced = [Needle(line, (place + 0.5) / len(hay)) for place, line in enumerate(hay)]
    placed = sorted([*needles, *spaced], key=lambda needle: needle.depth)
    between = " " if haystack == "text" else "\n"
    return between.join(needle.text for needle in placed) + "\n"
