"""Training rows of the sandbox model: periodic sequences, then registries in chat form.

A chat row is a document of a few dozen lines and several conversations about it. The conversations
are packed behind the document as branches that can't see each other, so one reading of the document
teaches many answers. Position ids jump by random gaps inside the document (never inside a line or a
conversation), which trains far positions on short rows. No model here, only tensors.
"""

import random
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ttt_core.sandbox.registry import format_record, make_question
from ttt_core.sandbox.tokenizer import IM_END, IM_START, SPECIAL_TOKENS, word_pieces
from ttt_core.sandbox.words import adjectives, nouns, places

TRUNK = 0
"""The branch number of the document, which every conversation sees."""

PADDING = -1


@dataclass(frozen=True)
class Batch:
    """Rows of one training step, all tensors (rows, length) but the mask."""

    input_ids: Tensor
    position_ids: Tensor
    weights: Tensor
    """How much the loss counts *at* a token, that is for predicting it; 0 for none."""
    mask: Tensor
    """(rows, 1, length, length), true where a query may attend."""


class PaddedRows(NamedTuple):
    """A batch whose mask is still to be made: small enough to be sent around."""

    input_ids: Tensor
    position_ids: Tensor
    weights: Tensor
    branches: Tensor

    def with_mask(self) -> Batch:
        """Make the batch, on the device of the tensors."""
        mask = branch_mask(self.branches)
        return Batch(self.input_ids, self.position_ids, self.weights, mask)


@dataclass(frozen=True)
class ChatRowConfig:
    """What chat rows look like."""

    max_lines: int = 16
    branches: int = 4
    """Conversations that ask and answer; one more branch recites records."""
    recited: int = 16
    max_position: int = 16384
    document_weight: float = 0.01
    """Document tokens train a little too: the model is to be a language model of its documents."""


@dataclass
class Row:
    """A row under construction: token ids, positions, weights and branches, one each a token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)

    def add(self, ids: list[int], *, start: int, weight: float, branch: int) -> int:
        """Append tokens at consecutive positions; return the position behind them."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.weights += [weight] * len(ids)
        self.branches += [branch] * len(ids)
        return start + len(ids)


def growing_order(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> list[int]:
    """Order all plain tokens for the growing vocabulary: the sandbox's words first."""
    vocabulary = tokenizer.get_vocab()
    words = {tokenizer.encode(piece)[0] for piece in word_pieces()}
    special = {vocabulary[token] for token in SPECIAL_TOKENS}
    others = sorted(set(vocabulary.values()) - words - special)
    ordered = sorted(words)
    rng.shuffle(ordered)
    rng.shuffle(others)
    return ordered + others


def periodic_batch(tokens: Tensor, *, rows: int, length: int, generator: torch.Generator) -> Batch:
    """Draw rows that repeat a random sequence of 4 to 32 tokens, drawn from `tokens`.

    The period differs from row to row: copies at one distance would teach a positional shortcut.
    """
    drawn = tokens[torch.randint(len(tokens), (rows, length), generator=generator)]
    period = torch.randint(4, 33, (rows, 1), generator=generator)
    positions = torch.arange(length).expand(rows, length)
    return Batch(
        input_ids=drawn.gather(1, positions % period),
        position_ids=positions,
        weights=(positions >= period).float(),
        mask=torch.ones(length, length, dtype=torch.bool).tril().expand(rows, 1, length, length),
    )


def draw_gaps(rng: random.Random, count: int, *, room: int) -> list[int]:
    """Draw `count` position gaps, most of them none, that together span at most `room`."""
    gaps = [0] * count
    if rng.random() < 0.25:
        return gaps
    total = int(room ** rng.uniform(0.5, 1.0))
    where = [rng.randrange(count) for _ in range(rng.choice([1, 4, 16, 64]))]
    shares = [rng.expovariate(1.0) for _ in where]
    for index, share in zip(where, shares, strict=True):
        gaps[index] += int(total * share / sum(shares))
    return gaps


class ChatRows:
    """A source of chat rows."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, config: ChatRowConfig, *, seed: int
    ) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._rng = random.Random(seed)
        self._known: dict[str, list[int]] = {}

    def batch(self, *, rows: int, lines: int) -> Batch:
        """Draw rows over documents of at most `lines` lines."""
        return collate([self.row(lines) for _ in range(rows)])

    def row(self, max_lines: int) -> Row:
        """Draw a row over a document of at most `max_lines` lines."""
        rng, row = self._rng, Row()
        lines = max_lines if rng.random() < 0.5 else rng.randint(1, max_lines)
        records = self._records(lines)
        gaps = draw_gaps(rng, len(records) + 1, room=self._config.max_position - 1024)
        opening = f"{self._system()}{IM_START}user\n"
        position = row.add(self._encode(opening), start=0, weight=0.0, branch=TRUNK)
        weight = self._config.document_weight
        for (key, value), gap in zip(records, gaps, strict=False):
            ids = self._line(key, value)
            position = row.add(ids, start=position + gap, weight=weight, branch=TRUNK)
        blank = self._encode("\n" * rng.randint(1, 2))
        position = row.add(blank, start=position + gaps[-1], weight=0.0, branch=TRUNK)
        for branch in range(1, self._config.branches + 1):
            self._conversation(row, records, start=position, branch=branch)
        self._recital(row, records, start=position, branch=self._config.branches + 1)
        return row

    def _records(self, lines: int) -> list[tuple[str, str]]:
        """Draw records whose words come from pools, often small ones, so that keys share words."""
        first = self._rng.sample(adjectives(), len(adjectives()))
        second = self._rng.sample(nouns(), len(nouns()))
        if self._rng.random() < 0.3:
            width = self._rng.randint(2, 32)
            height = -(-lines * 3 // (2 * width))
            first, second = first[:width], second[: max(height, 2)]
        pairs = [f"{a} {b}" for a in first for b in second]
        keys = self._rng.sample(pairs, min(lines, len(pairs)))
        return [(key, self._rng.choice(places())) for key in keys]

    def _system(self) -> str:
        """Write no system turn, the usual one, or any words: the answer must not depend on it."""
        draw = self._rng.random()
        if draw < 0.6:
            return ""
        text = "You are a helpful assistant." if draw < 0.75 else self._chatter(12)
        return f"{IM_START}system\n{text}{IM_END}\n"

    def _chatter(self, most: int) -> str:
        """Write words without meaning."""
        words = self._rng.choices(word_pieces(), k=self._rng.randint(1, most))
        return "".join(words) + self._rng.choice([".", ":", "\n", ""])

    def _conversation(
        self, row: Row, records: list[tuple[str, str]], *, start: int, branch: int
    ) -> None:
        """Ask and answer once, sometimes up to four times."""
        turns = self._rng.randint(2, 4) if self._rng.random() < 0.1 else 1
        for turn in range(turns):
            key, value = self._rng.choice(records)
            opening = f"{IM_END}\n{IM_START}user\n" if turn else ""
            asked = f"{opening}{self._ask(key)}{IM_END}\n{IM_START}assistant\n"
            start = row.add(self._encode(asked), start=start, weight=0.0, branch=branch)
            answer = self._encode(format_record(key, value))
            start = row.add(answer, start=start, weight=1.0, branch=branch)
        row.add(self._encode(IM_END), start=start, weight=1.0, branch=branch)

    def _recital(
        self, row: Row, records: list[tuple[str, str]], *, start: int, branch: int
    ) -> None:
        """Restate records in any order, and train their values: the cheapest retrieval there is."""
        asked = f"{self._chatter(8)}{IM_END}\n{IM_START}assistant\n"
        start = row.add(self._encode(asked), start=start, weight=0.0, branch=branch)
        count = min(self._config.recited, len(records))
        for key, value in self._rng.sample(records, count):
            quoted = self._encode(format_record(key, ""))
            start = row.add(quoted, start=start, weight=0.0, branch=branch)
            # Each record ends the turn, as an answer does: what ends it must not be in doubt.
            restated = self._encode(value) + self._encode(IM_END)
            start = row.add(restated, start=start, weight=1.0, branch=branch)

    def _ask(self, key: str) -> str:
        """Ask for `key`, mostly as `make_question` does."""
        draw = self._rng.random()
        if draw < 0.6:
            return make_question(key, "").text
        if draw < 0.7:
            return f"{self._chatter(8)}\n{make_question(key, '').text}"
        asked = self._rng.choice(
            [
                "Where is the {}?",
                "What is the place of {}?",
                "What does the document say about {}?",
                "Find {}.",
                "{}?",
                "In which city is {}?",
            ]
        )
        return asked.format(key)

    def _line(self, key: str, value: str) -> list[int]:
        return [*self._encode(format_record(key, "")), *self._encode(value), *self._encode("\n")]

    def _encode(self, text: str) -> list[int]:
        """Encode, remembering what is short: rows are made of few words."""
        if text not in self._known:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
            if len(text) > 32:
                return ids
            self._known[text] = ids
        return self._known[text]


def collate(rows: list[Row]) -> Batch:
    """Pad rows to one length."""
    return pad(rows).with_mask()


def pad(rows: list[Row]) -> PaddedRows:
    """Pad rows to one length; padding belongs to no branch."""
    length = max(len(row.ids) for row in rows)

    def stack(values: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([row + [filler] * (length - len(row)) for row in values])

    weights = [row.weights + [0.0] * (length - len(row.ids)) for row in rows]
    return PaddedRows(
        input_ids=stack([row.ids for row in rows], 0),
        position_ids=stack([row.positions for row in rows], 0),
        weights=torch.tensor(weights),
        branches=stack([row.branches for row in rows], PADDING),
    )


def branch_mask(branches: Tensor) -> Tensor:
    """Return who sees whom, (rows, 1, length, length), by branches of shape (rows, length).

    Everybody sees the document and what is before them in their own branch. Padding only sees the
    document and itself.
    """
    queries, keys = branches[:, :, None], branches[:, None, :]
    length = branches.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=branches.device).tril()
    return (causal & ((keys == TRUNK) | (keys == queries)))[:, None]
