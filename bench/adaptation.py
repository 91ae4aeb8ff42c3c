"""What does adapting to a document cost, against its floor and against the alternatives?

    python -m bench.adaptation
    python -m bench.adaptation --model qwen3-4b --tokens 32768

For each length and kind of batch (see `bench.steps`):

    s/step          ours: forward, backward, clip, optimiser step
    floor           the operations no step avoids over the matrix rate of the model's own shapes,
                    or bytes over bandwidth, whichever takes longer; all measured in the same rounds
                    (see `bench.counting`); in brackets at the rate of a large square product
    copied cache    the same step behind a deep copy of the cache, as without this engine
    whole document  one step on all tokens without a cache (once, up to `--whole-document-up-to`)
    thinking        decoding as many tokens as a step's operations would pay for, by the paper's
                    formulas (`ttt_core.flops`): that number times the measured seconds of one
    document        `--steps` steps, measured in one go, reading the document not included

Ours and the copy begin with the same adapter; their first losses must agree, or the row is void.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from bench import answering
from bench.counting import StepCost, step_cost
from bench.measure import Timed, interleaved, timed
from bench.options import Setting, make_parser, make_setting
from bench.rates import Gauges, Rates
from bench.steps import Trainer, make_batches
from bench.table import Columns, Result, divided, finish, number, print_table, ratio
from ttt_core import flops
from ttt_core.config import AdaptationConfig
from ttt_core.packed import PackedBatch
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix

COLUMNS: Columns = {
    "T": lambda row: f"{row['tokens']:,}",
    "batch": lambda row: f"{row['batch']}, {row['batch_tokens']} tokens",
    "s/step": lambda row: row["note"] or number(row["seconds"]),
    "floor": lambda row: f"{number(row['floor'])} ({number(row['square_floor'])})",
    "step ÷ floor": lambda row: f"{ratio(row['over_floor'])} ({ratio(row['over_square_floor'])})",
    "copied cache": lambda row: _against(row, "copied"),
    "whole document": lambda row: _against(row, "whole"),
    "thinking": lambda row: _against(row, "thinking"),
    "document": lambda row: f"{number(row['document'])} ({row['steps']} steps)",
}

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest relative difference of two losses that are to be equal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every length, print the table, write the JSON."""
    options = _parse(arguments)
    setting = make_setting(options, cpu=[1_024, 4_096], cuda=[4_096, 32_768])
    rows: list[Result] = []
    reading = {}
    for tokens in options.tokens:
        read = partial(prefill, setting.runtime, setting.document(tokens))
        reading[tokens], prefix = timed(read, setting.device)
        print(f"T = {tokens:,}: read in {reading[tokens]:.2f} s", flush=True)
        rows += _Length(setting, options, prefix).rows()
    print_table(rows, COLUMNS)
    finish("adaptation", setting, options, read_seconds=reading, rows=rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, output="adaptation", tokens="1024 4096; on CUDA 4096 32768")
    parser.add_argument("--positions", type=int, default=128, help="tokens of an in-place step")
    parser.add_argument("--steps", type=int, default=32, help="steps of a whole adaptation")
    parser.add_argument("--parametrization", choices=["lora", "full"], default="lora")
    parser.add_argument("--whole-document-up-to", type=int, default=4_096, metavar="TOKENS")
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class _Length:
    """All kinds of steps on one document."""

    setting: Setting
    options: argparse.Namespace
    prefix: FrozenPrefix

    def rows(self) -> list[Result]:
        """Measure each kind of batch, then what all of them are held against."""
        batches = make_batches(self.setting, self.prefix, self.options.positions)
        whole, token = self._whole_document(), self._seconds_per_token()
        return [self._row(name, batch, whole, token) for name, batch in batches.items()]

    def _row(self, name: str, batch: PackedBatch, whole: float | None, token: float) -> Result:
        config = AdaptationConfig(parametrization=self.options.parametrization)
        shape, dtype = self.setting.shape, self.setting.dtype
        ours, copied = (Trainer(self.setting, self.prefix, config) for _ in range(2))
        losses = ours.ours(batch), copied.copied_cache(batch)  # Both warm up, too.
        gauges = Gauges(self.setting, len(batch.input_ids))
        peers: dict[str, Callable[[int], float | None]] = {
            "ours": lambda _: ours.ours(batch),
            "copied": lambda _: copied.copied_cache(batch),
            **gauges.peers,
        }
        times = interleaved(peers, rounds=self.options.repeat, device=self.setting.device)
        rates = gauges.rates(times)
        cost = step_cost(shape, batch, len(self.prefix), config, dtype)
        return {
            "tokens": len(self.prefix),
            "batch": name,
            "batch_tokens": len(batch.input_ids),
            "steps": self.options.steps,
            "losses": losses,
            "whole": whole,
            "rates": vars(rates),
            "cost": vars(cost),
            **self._thinking(batch, token),
            **self._judged(losses, times),
            **self._floors(cost, rates, times["ours"].median),
            "document": self._document(ours, batch),
        }

    def _judged(self, losses: tuple[float, float], times: Mapping[str, Timed[Any]]) -> Result:
        a, b = losses
        void = not abs(a - b) <= TOLERANCE[self.options.dtype] * abs(b)
        return {
            "void": void,
            "note": f"void: losses {a:.4f}, {b:.4f}" if void else "",
            "seconds": None if void else times["ours"].median,
            "copied": None if void else times["copied"].median,
            "all_seconds": {name: times[name].seconds for name in times},
        }

    def _floors(self, cost: StepCost, rates: Rates, seconds: float) -> Result:
        floor, square = cost.floor(rates), cost.square_floor(rates)
        return {
            "floor": floor,
            "square_floor": square,
            "over_floor": seconds / floor,
            "over_square_floor": seconds / square,
        }

    def _thinking(self, batch: PackedBatch, token: float) -> Result:
        architecture, tokens = self.setting.runtime.architecture, len(self.prefix)
        spent = flops.training_flops(architecture, len(batch.input_ids), tokens)
        count = flops.thinking_tokens(architecture, spent, tokens)
        return {"thinking_tokens": count, "token": token, "thinking": count * token}

    def _seconds_per_token(self) -> float:
        """Decode one answer at a time; the median step of the median answer."""
        questions = self.setting.questions(self.options.repeat + 1, 24)
        answers = [answering.ours_one_by_one(self.setting, self.prefix, [q], 16) for q in questions]
        return median(answer.token or 0.0 for answer in answers[1:])

    def _whole_document(self) -> float | None:
        if len(self.prefix) > self.options.whole_document_up_to:
            return None
        config = AdaptationConfig(parametrization=self.options.parametrization)
        trainer = Trainer(self.setting, self.prefix, config)
        return timed(trainer.whole_document, self.setting.device)[0]

    def _document(self, trainer: Trainer, batch: PackedBatch) -> float:
        def steps() -> None:
            for _ in range(self.options.steps):
                trainer.ours(batch)

        return timed(steps, self.setting.device)[0]


def _against(row: Result, name: str) -> str:
    """Show seconds of an alternative, and how many of our steps they hold."""
    if row[name] is None:
        return number(None)
    return f"{number(row[name])} ({ratio(divided(row[name], row['seconds']))})"


if __name__ == "__main__":
    main()
