"""How much memory does each part take? Beyond the weights, at its peak, and what stays.

    python -m bench.memory
    python -m bench.memory --model qwen3-4b --tokens 32768 --questions 16

Each part is run once; peaks are of the device on CUDA and of the process on Linux (see
`bench.measure`). `predicted` is arithmetic, in bytes of keys and values only:
2 * layers * kv_heads * head_dim * tokens * itemsize.

    prefill             the document's K,V are what stays; predicted against `FrozenPrefix.nbytes`
    step                one training step of each kind of batch (see `bench.steps`)
    answering           Q questions: one by one, together, and with transformers alone
                        (predicted: the K,V of questions and answers, and copies of the document's)

Answers are compared with ours one by one; where tokens differ the row is void.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench import answering
from bench.answering import Answered
from bench.checking import Check, check
from bench.measure import Memory, measured_memory
from bench.models import kv_bytes
from bench.options import Setting, make_parser, make_setting
from bench.steps import Trainer, make_batches
from bench.table import Columns, Result, finish, mebibytes, percent, print_table
from ttt_core.config import AdaptationConfig
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix

COLUMNS: Columns = {
    "T": lambda row: f"{row['tokens']:,}",
    "part": lambda row: row["part"],
    "K,V predicted, MiB": lambda row: mebibytes(row["predicted_bytes"]),
    "K,V held, MiB": lambda row: mebibytes(row["kv_bytes"]),
    "stays, MiB": lambda row: row["note"] or mebibytes(row["held_bytes"]),
    "peak, MiB": lambda row: mebibytes(row["peak_bytes"]),
    "same tokens": lambda row: percent(row["identical"]),
}

Answer = Callable[[Setting, FrozenPrefix, answering.Questions, int], Answered]

PEERS: dict[str, tuple[Answer, Callable[[int], int]]] = {
    "ours, one by one": (answering.ours_one_by_one, lambda count: 0),
    "ours, together": (answering.ours_together, lambda count: 0),
    "generate, shared cache": (answering.shared_cache, lambda count: 1),  # Growing copies it.
    "generate, copied cache": (answering.copied_cache, lambda count: 1),
    "generate, a cache a row": (answering.copied_rows, lambda count: count),
}
"""How to answer, and how many copies of the document's K,V that makes for so many questions."""


_TOGETHER = ("ours, together", "generate, a cache a row")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every length, print the table, write the JSON."""
    options = _parse(arguments)
    setting = make_setting(options, cpu=[1_024, 4_096], cuda=[4_096, 32_768])
    prefill(setting.runtime, setting.document(64))  # Warm up.
    rows = [row for tokens in options.tokens for row in _rows(setting, options, tokens)]
    print_table(rows, COLUMNS)
    finish("memory", setting, options, rows=rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, output="memory", tokens="1024 4096; on CUDA 4096 32768")
    parser.add_argument("--positions", type=int, default=128, help="tokens of an in-place step")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--question-tokens", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=16)
    return parser.parse_args(arguments)


def _rows(setting: Setting, options: argparse.Namespace, tokens: int) -> list[Result]:
    """Measure the parts in the order of their use."""
    read = partial(prefill, setting.runtime, setting.document(tokens))
    memory, prefix = measured_memory(read, setting.device)
    predicted = kv_bytes(setting.shape, tokens, setting.dtype)
    reading = _row(tokens, "prefill", memory, predicted) | {"kv_bytes": prefix.nbytes}
    length = _Length(setting, options, prefix)
    return [reading, *length.steps(), *length.answers()]


@dataclass(frozen=True)
class _Length:
    """What follows the reading of one document."""

    setting: Setting
    options: argparse.Namespace
    prefix: FrozenPrefix

    def steps(self) -> list[Result]:
        """One training step of each kind; a first one warms up and makes the optimiser's state."""
        rows = []
        batches = make_batches(self.setting, self.prefix, self.options.positions)
        for name, batch in batches.items():
            trainer = Trainer(self.setting, self.prefix, AdaptationConfig())
            trainer.ours(batch)
            memory, _ = measured_memory(partial(trainer.ours, batch), self.setting.device)
            part = f"step, {name}, {len(batch.input_ids)} tokens"
            rows.append(_row(len(self.prefix), part, memory, None))
        return rows

    def answers(self) -> list[Result]:
        """All questions by each peer."""
        count = self.options.questions
        questions = self.setting.questions(count, self.options.question_tokens)
        expected: Answered | None = None
        rows = []
        for name, (answer, copies) in PEERS.items():
            work = partial(answer, self.setting, self.prefix, questions, self.options.new_tokens)
            memory, found = measured_memory(work, self.setting.device)
            expected = expected or found
            checked = check(self.setting, self.prefix, questions, expected.tokens, found.tokens)
            part = f"{count} questions, {name}"
            predicted = self._predicted(name, copies(count))
            row = _row(len(self.prefix), part, memory, predicted)
            rows.append(row | _judged(checked))
        return rows

    def _predicted(self, name: str, copies: int) -> int:
        """K,V beyond the document's own: of its copies, and of questions and answers."""
        rows = self.options.questions if name in _TOGETHER else 1
        tail = self.options.question_tokens + self.options.new_tokens - 1  # The last is not run.
        shape, dtype = self.setting.shape, self.setting.dtype
        return copies * self.prefix.nbytes + kv_bytes(shape, rows * tail, dtype)


def _row(tokens: int, part: str, memory: Memory, predicted: int | None) -> Result:
    return {
        "tokens": tokens,
        "part": part,
        "predicted_bytes": predicted,
        "kv_bytes": None,
        "held_bytes": memory.held,
        "peak_bytes": memory.peak,
        "identical": None,
        "note": "",
    }


def _judged(checked: Check) -> Result:
    judged: Result = {"identical": checked.identical, "void": checked.void}
    if checked.void:
        judged |= {"note": "void: other tokens", "held_bytes": None, "peak_bytes": None}
    return judged


if __name__ == "__main__":
    main()
