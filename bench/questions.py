"""What does a question about one document cost, and what does it cost without this engine?

    python -m bench.questions
    python -m bench.questions --model qwen3-0.6b --layers 4 --tokens 4096 --questions 16

Questions of `--question-tokens` tokens, answers of `--new-tokens`. Peers on the same weights, in
the same rounds:

    a  generate, whole prompt       `model.generate` reads the document again for each question
    b  generate, copied cache       transformers' recipe: copy.deepcopy of the document's cache
    c  generate, shared cache       a new cache that points at the document's tensors
    d  ours, one by one
    e  ours, together               all Q questions in one go
    f  generate, a cache a row      all Q in one batch; the document's cache repeated Q times

Seconds are per question, without reading the document (a: with it). What goes one by one costs
the same whatever Q is: `--repeat` questions are timed, one a round. Every answer is compared with
d's. `peak` is beyond weights and document. `bound` is the share of the bandwidth bound that ours
reaches while decoding: weights, the document's K,V once and the rows' own K,V, over the measured
bandwidth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

from bench import answering
from bench.answering import Answered, Answers, Questions
from bench.checking import Check, check
from bench.measure import Memory, Timed, interleaved, measured_memory, timed
from bench.models import kv_bytes, weight_bytes
from bench.options import Setting, make_parser, make_setting
from bench.rates import Rates, measure_rates
from bench.table import (
    Columns,
    Result,
    divided,
    finish,
    mebibytes,
    number,
    percent,
    print_table,
    ratio,
)
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix


class Peer(NamedTuple):
    """One way to answer."""

    name: str
    answer: Callable[[Setting, FrozenPrefix, Questions, int], Answered]
    together: bool = False


PEERS = {
    "a": Peer("generate, whole prompt", answering.whole_prompt),
    "b": Peer("generate, copied cache", answering.copied_cache),
    "c": Peer("generate, shared cache", answering.shared_cache),
    "d": Peer("ours, one by one", answering.ours_one_by_one),
    "e": Peer("ours, together", answering.ours_together, together=True),
    "f": Peer("generate, a cache a row", answering.copied_rows, together=True),
}

Cell = tuple[str, int]
"""A peer's letter, and how many questions it answers at a time."""

COLUMNS: Columns = {
    "T": lambda row: f"{row['tokens']:,}",
    "peer": lambda row: f"{row['peer']}  {PEERS[row['peer']].name}",
    "Q": lambda row: str(row["questions"]),
    "s/question": lambda row: row["note"] or number(row["seconds"]),
    "tokens/s": lambda row: number(row["tokens_per_second"]),
    "a ÷ this": lambda row: ratio(row["a_over_this"]),
    "b ÷ this": lambda row: ratio(row["b_over_this"]),
    "peak, MiB": lambda row: mebibytes(row["peak_bytes"]),
    "bound": lambda row: percent(row["share_of_bound"]),
    "same tokens": lambda row: percent(row["identical"]),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every length, print the table, write the JSON."""
    options = _parse(arguments)
    setting = make_setting(options, cpu=[1_024, 4_096], cuda=[1_024, 4_096, 32_768])
    if options.most_copied is None:
        options.most_copied = 32 if setting.device.type == "cuda" else 2
    rates = measure_rates(setting, options.question_tokens)
    rows: list[Result] = []
    reading = {}
    for tokens in options.tokens:
        read = partial(prefill, setting.runtime, setting.document(tokens))
        reading[tokens], prefix = timed(read, setting.device)
        print(f"T = {tokens:,}: read in {reading[tokens]:.2f} s", flush=True)
        rows += _Length(setting, options, prefix, rates).rows()
    print_table(rows, COLUMNS)
    finish("questions", setting, options, rates=vars(rates), read_seconds=reading, rows=rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, output="questions", tokens="1024 4096; on CUDA 32768 too")
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--question-tokens", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--peers", default="".join(PEERS), help="letters of the peers to run")
    parser.add_argument(
        "--most-copied", type=float, help="GiB of K,V that f may copy; default: 2, on CUDA 32"
    )
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class _Length:
    """All peers on one document."""

    setting: Setting
    options: argparse.Namespace
    prefix: FrozenPrefix
    rates: Rates

    def rows(self) -> list[Result]:
        """Measure memory, which warms up; then time all peers in turn; then compare."""
        device = self.setting.device
        works = {cell: self._work(cell) for cell in self._cells() if self._fits(cell)}
        memory = {
            cell: measured_memory(partial(work, 0), device)[0] for cell, work in works.items()
        }
        times = interleaved(works, rounds=self.options.repeat, device=device)
        count = max(*self.options.questions, self.options.repeat)
        expected = self._answer(("d", 1), self._questions(count)).tokens
        rows = [
            self._row(cell, times[cell], memory[cell], self._check(cell, times[cell], expected))
            if cell in works
            else self._skipped(cell)
            for cell in self._cells()
        ]
        return _compared(rows)

    def _check(self, cell: Cell, times: Timed[Answered], expected: Answers) -> Check:
        """Compare the answers of all rounds; the worst counts."""
        questions = self._questions(len(expected))
        asked = [self._asked(cell, turn) for turn in range(len(times.results))]
        checks = [
            check(self.setting, self.prefix, questions[some], expected[some], result.tokens)
            for some, result in zip(asked, times.results, strict=True)
        ]
        return Check(min(one.identical for one in checks), any(one.void for one in checks))

    def _cells(self) -> list[Cell]:
        wanted = [(key, peer) for key, peer in PEERS.items() if key in self.options.peers]
        alone = [(key, 1) for key, peer in wanted if not peer.together]
        return alone + [
            (key, count)
            for count in self.options.questions
            for key, peer in wanted
            if peer.together
        ]

    def _fits(self, cell: Cell) -> bool:
        copied = self.prefix.nbytes * cell[1] if cell[0] == "f" else 0
        return bool(copied <= self.options.most_copied * 2**30)

    def _questions(self, count: int) -> list[list[int]]:
        return self.setting.questions(count, self.options.question_tokens)

    def _asked(self, cell: Cell, turn: int) -> slice:
        """Which questions: all of them together, or the round's own."""
        return slice(cell[1]) if PEERS[cell[0]].together else slice(turn, turn + 1)

    def _answer(self, cell: Cell, questions: Questions) -> Answered:
        return PEERS[cell[0]].answer(self.setting, self.prefix, questions, self.options.new_tokens)

    def _work(self, cell: Cell) -> Callable[[int], Answered]:
        questions = self._questions(max(cell[1], self.options.repeat))
        return lambda turn: self._answer(cell, questions[self._asked(cell, turn)])

    def _row(self, cell: Cell, times: Timed[Answered], memory: Memory, checked: Check) -> Result:
        void, seconds = checked.void, times.median / cell[1]
        return self._blank(cell) | {
            "identical": checked.identical,
            "void": void,
            "note": "void: other tokens" if void else "",
            "seconds": None if void else seconds,
            "all_seconds": times.seconds,
            "tokens_per_second": None if void else self.options.new_tokens / seconds,
            "share_of_bound": None if void else divided(self._bound(cell), _token(times)),
            "peak_bytes": memory.peak,
        }

    def _bound(self, cell: Cell) -> float:
        """Seconds of a decoding step if it did nothing but read what it must."""
        tails = cell[1] * (self.options.question_tokens + self.options.new_tokens // 2)
        own = kv_bytes(self.setting.shape, tails, self.setting.dtype)
        read = weight_bytes(self.setting.model) + self.prefix.nbytes + own
        return read / self.rates.bandwidth

    def _blank(self, cell: Cell) -> Result:
        names = ["seconds", "tokens_per_second", "share_of_bound", "peak_bytes", "identical"]
        return {
            "tokens": len(self.prefix),
            "peer": cell[0],
            "questions": cell[1],
            **dict.fromkeys(names),
        }

    def _skipped(self, cell: Cell) -> Result:
        copied = self.prefix.nbytes * cell[1] / 2**30
        return self._blank(cell) | {"note": f"not run: {copied:.1f} GiB of K,V"}


def _token(times: Timed[Answered]) -> float | None:
    """Median seconds of a decoding step, of a peer that says."""
    found = [result.token for result in times.results if result.token is not None]
    return median(found) if found else None


def _compared(rows: list[Result]) -> list[Result]:
    """Add how many times as long peers a and b take as each row."""
    for peer in ("a", "b"):
        base = next((row["seconds"] for row in rows if row["peer"] == peer), None)
        for row in rows:
            row[f"{peer}_over_this"] = divided(base, row["seconds"])
    return rows


if __name__ == "__main__":
    main()
