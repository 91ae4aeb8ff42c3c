"""Training rows: a lesson's document, and its questions behind it as branches.

A batch is a function of its number, so that several processes can make batches and a run that was
interrupted goes on with the very rows that would have come.
"""

from __future__ import annotations

from random import Random

from transformers import PreTrainedTokenizerFast

from ttt_core.sandbox.larger.config import DataConfig
from ttt_core.sandbox.larger.lessons import Lesson, Lessons
from ttt_core.sandbox.rows import (
    TRUNK,
    ChatRowConfig,
    ChatRows,
    PaddedRows,
    Row,
    draw_gaps,
    pad,
)
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.tokenizer import IM_END, IM_START

REGISTRY_SHARE = 0.2
"""Of rows; they are the bundled model's, recitals included."""

_SYSTEM_SHARE = 0.2


class RowSource:
    """Makes batches by number.

    Args:
        tokenizer: See `train_tokenizer`.
        config: What rows look like.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: DataConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        ends = self._encode(["\n", ". "])
        # In a small vocabulary the end of a sentence may be two tokens, and one of them any space.
        self._ends = {ids[0] for ids in ends if len(ids) == 1}

    def batch(self, index: int) -> list[PaddedRows]:
        """Make batch `index`, cut into parts that go through the model one after the other."""
        return [pad(part) for part in self._parts(self.rows(index))]

    def rows(self, index: int) -> list[Row]:
        """Draw rows until they have the tokens of a batch; the shortest row first."""
        config, rows, room = self._config, list[Row](), self._config.batch_tokens
        growth = min(1.0, 0.1 + 0.9 * index / config.growing_batches)
        rng = stream("larger sandbox model", "tune", config.seed, index, "rows")
        lessons = Lessons(config, rng)
        registries = ChatRows(
            self._tokenizer,
            ChatRowConfig(max_position=config.max_position),
            seed=rng.getrandbits(63),
        )
        while room > 0:
            if rng.random() < REGISTRY_SHARE:
                row = registries.row(max(4, int(growth * config.max_lines)))
            else:
                row = self.lay_out(lessons.draw(growth), rng)
            rows.append(row)
            room -= len(row.ids)
        return sorted(rows, key=lambda row: len(row.ids))

    def lay_out(self, lesson: Lesson, rng: Random) -> Row:
        """Write a lesson as a row, with gaps between the document's lines or sentences."""
        opening, blank, document, *turns = self._encode(self._texts(lesson, rng))
        asked, answers = turns[::2], turns[1::2]
        longest = max(len(a) + len(b) for a, b in zip(asked, answers, strict=True))
        pieces = self._pieces(document)
        used = len(opening) + len(document) + len(blank) + longest
        gaps = draw_gaps(rng, len(pieces) + 1, room=max(1, self._config.max_position - used))
        row = Row()
        at = row.add(opening, start=0, weight=0.0, branch=TRUNK)
        for piece, gap in zip(pieces, gaps, strict=False):
            at = row.add(piece, start=at + gap, weight=lesson.weight, branch=TRUNK)
        at = row.add(blank, start=at + gaps[-1], weight=0.0, branch=TRUNK)
        for branch, (question, answer) in enumerate(zip(asked, answers, strict=True), TRUNK + 1):
            behind = row.add(question, start=at, weight=0.0, branch=branch)
            row.add(answer, start=behind, weight=1.0, branch=branch)
        return row

    def _texts(self, lesson: Lesson, rng: Random) -> list[str]:
        """Write opening, blank lines, document, and then question and answer in turn."""
        system = f"{IM_START}system\nYou are a helpful assistant.{IM_END}\n"
        opening = f"{system if rng.random() < _SYSTEM_SHARE else ''}{IM_START}user\n"
        texts = [opening, "\n" * rng.randint(1, 2), lesson.example.document]
        for question, answer in zip(lesson.example.questions, lesson.answers, strict=True):
            texts += [f"{question.text}{IM_END}\n{IM_START}assistant\n", f"{answer}{IM_END}"]
        return texts

    def _pieces(self, document: list[int]) -> list[list[int]]:
        """Cut behind every line or sentence; positions inside one are contiguous."""
        cuts = [place for place, token in enumerate(document, 1) if token in self._ends]
        starts = [0, *(cut for cut in cuts if cut < len(document))]
        return [document[a:b] for a, b in zip(starts, [*starts[1:], len(document)], strict=True)]

    def _parts(self, rows: list[Row]) -> list[list[Row]]:
        """Cut sorted rows into parts that have at most `part_tokens`, padding counted."""
        parts: list[list[Row]] = [[]]
        for row in rows:
            if parts[-1] and (len(parts[-1]) + 1) * len(row.ids) > self._config.part_tokens:
                parts.append([])
            parts[-1].append(row)
        return parts

    def _encode(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids
