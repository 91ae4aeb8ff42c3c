"""Many-shot classification without a file: made-up labels for what kinds of words a text has.

A text is `red badger in Oslo`; its label stands for the kind of the first word (a colour, a temper)
together with the kind of the second (an animal, an instrument, a thing of the house). Which made-up
word stands for which pair is drawn for every document, so that only the demonstrations say it, as
in symbol tuning (Wei et al., 2023, arXiv 2305.08298).
"""

from __future__ import annotations

from itertools import product
from random import Random

from ttt_core.examples import Split
from ttt_core.sandbox.tasks.many_shot import Labelled, ManyShotTask, Pools, Wording
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.words import places

FIRST = (
    "black blue crimson green grey indigo orange purple red scarlet silver",
    "bold brave calm cheerful friendly gentle happy honest jolly polite proud shy",
)
"""Colours, tempers."""
SECOND = (
    "badger bear beaver cow deer dolphin donkey fox goat horse lion otter tiger",
    "bell drum fiddle flute guitar harp piano",
    "basket bottle bucket candle chair clock kettle ladder lamp lantern mirror",
)
"""Animals, instruments, things of the house."""

_ONSETS = "bdfgklmnprstvz"
_VOWELS = "aeiou"


class MadeUpLabels(ManyShotTask):
    """Six made-up labels, inferred from demonstrations.

    Chance is that of a guess among the six labels of the document.

    Args:
        questions: Questions on a document.
    """

    lengths: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __init__(self, *, questions: int = 16) -> None:
        super().__init__(
            "many-shot",
            "Which made-up label does a new text have, going by labelled ones?",
            wording=Wording(),
            questions=questions,
        )

    def _pools(self, split: Split, seed: int, index: int) -> Pools:
        rng = stream(self.name, split, seed, index, "labels")
        kinds = list(product(FIRST, SECOND))
        shown: dict[str, list[str]] = {}
        asked: list[Labelled] = []
        for label, (first, second) in zip(made_up_words(len(kinds), rng), kinds, strict=True):
            texts = [
                f"{a} {b} in {rng.choice(places())}"
                for a, b in product(first.split(), second.split())
            ]
            rng.shuffle(texts)
            # Half of them at most: something must be left to show.
            most = min(self._questions, len(texts) // 2)
            asked += [Labelled(text, label) for text in texts[:most]]
            shown[label] = texts[most:]
        return Pools(shown, asked)


def made_up_words(count: int, rng: Random) -> list[str]:
    """Make up distinct words of three syllables."""
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(3))
        words["".join(syllables)] = None
    return list(words)
