"""How do the costs grow as the document doubles? Only reading it may grow faster than it does.

    python -m bench.scaling
    python -m bench.scaling --device cuda --tokens 4096 8192 16384 32768

For each length T, in rounds over all lengths (the ratio to the length before in brackets):

    prefill         reading the document once
    step            one training step of `--positions` tokens in place, from the document's middle
    first, later    seconds from a question to the first token of its answer: the first question
                    after reading the document, and the median of `--questions` later ones
    token           one decoded token after that, one answer at a time
    K,V             the document's K,V, read once at the measured bandwidth: what T must add to
                    `later` and `token`
    attend          a question's attention to the document at the measured matrix rate: likewise
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from bench import answering
from bench.measure import timed
from bench.models import kv_bytes
from bench.options import Setting, make_parser, make_setting
from bench.rates import Rates, measure_rates
from bench.steps import Trainer, make_batches
from bench.table import Columns, Result, divided, finish, number, print_table, ratio
from ttt_core.config import AdaptationConfig
from ttt_core.prefill import prefill
from ttt_core.prefix import FrozenPrefix

COSTS = ("prefill", "step", "first", "later", "token")

COLUMNS: Columns = {
    "T": lambda row: f"{row['tokens']:,}",
    **{f"{name}, s": lambda row, name=name: _growing(row, name) for name in COSTS},  # type: ignore[misc]
    "K,V, s": lambda row: number(row["read_kv"]),
    "attend, s": lambda row: number(row["attend"]),
}


class Costs(NamedTuple):
    """Seconds in one round."""

    prefill: float
    step: float
    first: float
    later: float
    token: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all lengths in rounds, print the table, write the JSON."""
    options = _parse(arguments)
    setting = make_setting(
        options, cpu=[512, 1_024, 2_048, 4_096, 8_192], cuda=[4_096, 8_192, 16_384, 32_768]
    )
    rates = measure_rates(setting, options.question_tokens)
    _measure(setting, options, min(options.tokens))  # Warm up.
    rounds: dict[int, list[Costs]] = {tokens: [] for tokens in options.tokens}
    for turn in range(options.repeat):
        for tokens in options.tokens:
            rounds[tokens].append(_measure(setting, options, tokens))
        print(f"round {turn + 1} of {options.repeat} done", flush=True)
    rows = [_row(setting, options, rates, tokens, costs) for tokens, costs in rounds.items()]
    _compare(rows)
    print_table(rows, COLUMNS)
    finish("scaling", setting, options, rates=vars(rates), rows=rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, output="scaling", tokens="512 to 8192; on CUDA 4096 to 32768")
    parser.add_argument("--positions", type=int, default=128, help="tokens of a training step")
    parser.add_argument("--questions", type=int, default=3, help="later questions in each round")
    parser.add_argument("--question-tokens", type=int, default=24)
    parser.add_argument("--new-tokens", type=int, default=8)
    return parser.parse_args(arguments)


def _measure(setting: Setting, options: argparse.Namespace, tokens: int) -> Costs:
    """Read, ask, ask again, train."""
    read = partial(prefill, setting.runtime, setting.document(tokens))
    reading, prefix = timed(read, setting.device)
    questions = setting.questions(options.questions + 1, options.question_tokens)
    answers = [
        answering.ours_one_by_one(setting, prefix, [question], options.new_tokens)
        for question in questions
    ]
    return Costs(
        prefill=reading,
        step=_step(setting, options, prefix),
        first=answers[0].first_token or 0.0,
        later=median(answer.first_token or 0.0 for answer in answers[1:]),
        token=median(answer.token or 0.0 for answer in answers[1:]),
    )


def _step(setting: Setting, options: argparse.Namespace, prefix: FrozenPrefix) -> float:
    """Seconds of the second step; the first warms up."""
    batch = make_batches(setting, prefix, options.positions)["random_span"]
    trainer = Trainer(setting, prefix, AdaptationConfig())
    trainer.ours(batch)
    return timed(partial(trainer.ours, batch), setting.device)[0]


def _row(
    setting: Setting, options: argparse.Namespace, rates: Rates, tokens: int, rounds: list[Costs]
) -> Result:
    shape = setting.shape
    products = 2 * 2.0 * shape.layers * shape.heads * shape.head_dim  # Scores and values.
    return {
        "tokens": tokens,
        **{name: median(getattr(costs, name) for costs in rounds) for name in COSTS},
        "read_kv": kv_bytes(shape, tokens, setting.dtype) / rates.bandwidth,
        "attend": products * options.question_tokens * tokens / rates.own,
        "rounds": [costs._asdict() for costs in rounds],
    }


def _compare(rows: list[Result]) -> None:
    """Add each cost's ratio to the length before."""
    before: Result = {}
    for row in rows:
        for name in COSTS:
            row[f"{name}_ratio"] = divided(row[name], before.get(name))
        before = row


def _growing(row: Result, name: str) -> str:
    growth = row[f"{name}_ratio"]
    return number(row[name]) + (f" ({ratio(growth)})" if growth else "")


if __name__ == "__main__":
    main()
