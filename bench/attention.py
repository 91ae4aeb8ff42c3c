"""Where do the heads look when a registry is asked for one of its lines, before and after adapting?

    python -m bench.attention
    python -m bench.attention --lines 64 2048 --seeds 3 --questions 8

The bundled model, its default recipe without the gate, so that every document has an "after". All
is seen at one query: the token that predicts the value, behind the true key. The needle is the
asked line. "Best head" is the head that gives it most mass, of all layers, for each question:

    mass      its mass on the needle, mean over the questions; their difference with its 95 %
              interval, by documents and then questions
    >= half   share of the questions with a head that gives the needle at least half
    lead      its needle over its best rival, nats; `enough` is the lead that suffices for half of
              the mass in the worst case, where all rivals score alike (see `ttt diagnose`)
    loss      of the value, nats
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from bench.table import Columns, Result, number, percent, print_table
from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.diagnostics import diagnose
from ttt_core.diagnostics.lemmas import demanded_lead
from ttt_core.evaluation.analysis.statistics import bootstrap_interval
from ttt_core.sandbox import Registry, is_correct, make_registry

if TYPE_CHECKING:
    from ttt_core.diagnostics.measure import Measurement

FIRST_SEED = 9_000  # Documents that no recipe, default or test has seen.
HALF = 0.5
RECIPE = AdaptationConfig(gate=False)

COLUMNS: Columns = {
    "lines (tokens)": lambda row: f"{row['lines']:,} ({row['tokens']:,})",
    "questions / documents": lambda row: f"{row['questions']:,} / {row['documents']:,}",
    "right": lambda row: _both(row, "right", lambda value: percent(value)),
    "mass, best head": lambda row: _both(row, "mass", lambda value: f"{value:.2f}"),
    "difference": lambda row: _difference(row),
    ">= half": lambda row: _both(row, "half", lambda value: percent(value)),
    "lead (enough)": lambda row: (
        f"{_both(row, 'lead', lambda value: f'{value:+.1f}')} ({row['enough']:.1f})"
    ),
    "loss": lambda row: _both(row, "loss", lambda value: number(value, 2)),
}


@dataclass(frozen=True)
class Side:
    """What was seen of one question, without or with the adapter; means over several."""

    right: float
    mass: float
    half: float
    lead: float
    loss: float

    @classmethod
    def mean(cls, sides: Sequence[Side]) -> Side:
        """Average every figure."""
        names = cls.__dataclass_fields__
        return cls(**{name: fmean(getattr(side, name) for side in sides) for name in names})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every length, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=6, help="documents of each length")
    parser.add_argument("--questions", type=int, default=16, help="on each document")
    parser.add_argument("--output", type=Path, default=Path("results/attention.json"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        engine = TTTEngine.from_pretrained(store=folder)
        rows = [_measure(engine, n, options.seeds, options.questions) for n in options.lines]
    print_table(rows, COLUMNS)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": platform.platform(), "python": platform.python_version()}
    options.output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    print(f"written to {options.output}")


def _measure(engine: TTTEngine, lines: int, seeds: int, questions: int) -> Result:
    """Ask every document of one length."""
    documents: list[_Asked] = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        documents.append(_ask(engine, make_registry(lines, seed=seed, questions=questions)))
        print(f"  {lines:,} lines, seed {seed}: done", flush=True)
        engine.reset()
    before = [side for asked in documents for side in asked.before]
    after = [side for asked in documents for side in asked.after]
    gains = [
        [new.mass - old.mass for old, new in zip(asked.before, asked.after, strict=True)]
        for asked in documents
    ]
    return {
        "lines": lines,
        "tokens": documents[0].tokens,
        "documents": seeds,
        "questions": len(before),
        "before": asdict(Side.mean(before)),
        "after": asdict(Side.mean(after)),
        "gain": fmean(gain for document in gains for gain in document),
        "interval": bootstrap_interval([gains]),
        "enough": demanded_lead(documents[0].rivals, HALF),
    }


@dataclass(frozen=True)
class _Asked:
    """One document with what was seen of each of its questions."""

    tokens: int
    rivals: int
    before: tuple[Side, ...]
    after: tuple[Side, ...]


def _ask(engine: TTTEngine, registry: Registry) -> _Asked:
    adapted = engine.adapt(registry.text, config=RECIPE)
    before, after, rivals = [], [], 0
    for question in registry.questions:
        found = diagnose(
            engine,
            adapted,
            question.text,
            needles=[question.answer],
            answer=question.answer,
            dilution=False,
        )
        assert found.after is not None
        assert found.answer_after is not None, "without a gate there is always an adapter"
        before.append(_side(found.before, is_correct(found.answer_before.text, question)))
        after.append(_side(found.after, is_correct(found.answer_after.text, question)))
        rivals = max(rivals, found.before.rivals)
    return _Asked(adapted.n_tokens, rivals, tuple(before), tuple(after))


def _side(measurement: Measurement, right: bool) -> Side:
    value = len(measurement.losses) - 1  # The query that predicts the answer's last token.
    masses = measurement.grid("mass", value).flatten()
    best = int(masses.argmax())
    mass = float(masses[best])
    return Side(
        right=float(right),
        mass=mass,
        half=float(mass >= HALF),
        lead=float(measurement.grid("lead", value).flatten()[best]),
        loss=measurement.losses[value],
    )


def _both(row: Result, name: str, show: Callable[[float], str]) -> str:
    return f"{show(row['before'][name])} → {show(row['after'][name])}"


def _difference(row: Result) -> str:
    low, high = row["interval"]
    return f"{row['gain']:+.2f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    main()
