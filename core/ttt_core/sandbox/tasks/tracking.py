"""Variable tracking: which variables hold a value, when all but one only name one another.

RULER's task (Hsieh et al. 2024, arXiv 2404.06654): a chain `VAR QKRTB = 48213`, `VAR PLDNC = VAR
QKRTB`, ... is scattered over the document in its order, and the question names the value. RULER
has one chain, so that naming every variable in sight is right; here several chains run through
each other, and each is asked for. Names have no vowels, so that no word of an answer is one.

Chance: who knows that names are five of twenty consonants but has not read the document guesses
one of 3,200,000; with as many guesses as variables in the chain, the expected share is
variables / 3,200,000. Who names all variables of the document scores 1, as in RULER; the answer's
length and the number of chains bound that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import NamedTuple, TypeVar

from ttt_core.errors import ConfigError
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.retrieval_haystack import (
    Haystack,
    Needle,
    check_haystack,
    filler,
    lay_out,
    take_words,
)
from ttt_core.sandbox.tasks.retrieval_scoring import string_match_all
from ttt_core.sandbox.tasks.seeds import stream

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_LETTERS_PER_NAME = 5
_NAMES = len(_LETTERS) ** _LETTERS_PER_NAME
_VALUES = range(10**4, 10**5)
_MOST_CHAINS = 10_000
"""Far below the 90,000 values, of which no two chains have the same."""

_Drawn = TypeVar("_Drawn", int, str)


class Chain(NamedTuple):
    """A value and the variables that hold it, in the order of assignment."""

    value: int
    names: tuple[str, ...]
    depths: tuple[float, ...]

    def needles(self) -> list[Needle]:
        """Return the assignments, each at its depth."""
        sources = [str(self.value), *(f"VAR {name}" for name in self.names)]
        return [
            Needle(f"VAR {name} = {source}", depth)
            for name, source, depth in zip(self.names, sources, self.depths, strict=False)
        ]


class VariableTracking:
    """Name all variables that hold a value.

    Args:
        haystack: What the assignments are hidden in; `needles`: further chains, not asked for.
        chains: How many chains there are, each with a value of its own.
        hops: How often a chain hands its value on; it has one variable more.
        questions: How many of the chains are asked for.

    Raises:
        ConfigError: There is no such haystack, a count is below 1, or there are fewer chains than
            questions.
    """

    name = "variable-tracking"
    description = "Follow chains of assignments and name all variables with a value (RULER)."
    unit = "words"
    lengths: tuple[int, ...] = (250, 500, 1000, 2000, 4000, 8000)
    max_new_tokens = 64

    def __init__(
        self, haystack: Haystack = "noise", *, chains: int = 4, hops: int = 4, questions: int = 4
    ) -> None:
        check_haystack(haystack)
        if min(hops, questions) < 1 or chains < questions:
            raise ConfigError(
                f"hops and questions must be at least 1, and chains at least questions; got "
                f"{hops} hops, {questions} questions, {chains} chains"
            )
        self._haystack = haystack
        self._chains = chains
        self._hops = hops
        self._questions = questions

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of at most `length` words, short of it by less than a sentence or chain.

        Raises:
            ConfigError: The chains alone have more words, or there are too few values for so many.
        """
        words = 4 + 5 * self._hops  # `VAR A = 1`, then `VAR B = VAR A` for each hop.
        most = _MOST_CHAINS * words if self._haystack == "needles" else None
        length = check_length(length, self.unit, least=self._chains * words, most=most)
        for index in range(count):
            yield self._example(length, words, split, seed, index)

    def score(self, answer: str, question: Question) -> float:
        """Return the share of the variables that the answer names; see `string_match_all`."""
        return string_match_all(answer, question.references)

    def _example(self, length: int, words: int, split: Split, seed: int, index: int) -> Example:
        needle = stream(self.name, split, seed, index, "needle")
        other = stream(self.name, split, seed, index, "haystack")
        chains = draw_chains(self._chains, self._hops, needle)
        needles = [line for chain in chains for line in chain.needles()]
        room = length - self._chains * words
        hay: list[str] = []
        if self._haystack == "needles":
            further = draw_chains(room // words, self._hops, other, beside=chains)
            needles += [line for chain in further for line in chain.needles()]
        else:
            hay = take_words(filler(self._haystack, other), room)
        return Example(
            id=f"{split}-{seed}-{index}",
            document=lay_out(needles, hay, self._haystack),
            questions=tuple(
                self._question(number, chain)
                for number, chain in enumerate(chains[: self._questions])
            ),
            length=length,
        )

    def _question(self, number: int, chain: Chain) -> Question:
        return Question(
            id=str(number),
            text=(
                f"Find all variables that are assigned the value {chain.value}, directly or "
                f"through other variables, in the text above. Answer with the names of the "
                f"{len(chain.names)} variables only, separated by commas."
            ),
            references=chain.names,
            chance=len(chain.names) / _NAMES,
            needles=tuple(needle.text for needle in chain.needles()),
            groups={"haystack": self._haystack, "hops": str(self._hops)},
        )


def draw_chains(
    count: int, hops: int, rng: Random, *, beside: Collection[Chain] = ()
) -> list[Chain]:
    """Draw chains that share no variable and no value, with each other or with those `beside`.

    The first chains of a larger count are those of a smaller one.
    """
    values = {chain.value for chain in beside}
    names = {name for chain in beside for name in chain.names}
    return [
        Chain(
            value=_draw_new(lambda: rng.choice(_VALUES), values),
            names=tuple(_draw_new(lambda: _draw_name(rng), names) for _ in range(hops + 1)),
            depths=tuple(sorted(rng.random() for _ in range(hops + 1))),
        )
        for _ in range(count)
    ]


def _draw_new(draw: Callable[[], _Drawn], taken: set[_Drawn]) -> _Drawn:
    """Draw until it is something new, and take it."""
    drawn = draw()
    while drawn in taken:
        drawn = draw()
    taken.add(drawn)
    return drawn


def _draw_name(rng: Random) -> str:
    """Draw the name of a variable."""
    return "".join(rng.choices(_LETTERS, k=_LETTERS_PER_NAME))
