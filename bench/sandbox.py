"""Does adaptation help the bundled model, and where? Prints the table that the README quotes.

    python -m bench.sandbox                       all lengths, every arm (an hour on 2 cores)
    python -m bench.sandbox --lines 1024 --parametrization lora

Every arm runs the default pipeline (learning rate by trial, early stopping, gate) and differs from
the others in one setting only. Documents are generated from seeds that nothing was tuned on.
Answers are joint: the record's key and its value must both be right. Differences are paired;
their 95 % intervals are bootstrapped over documents, then questions. Results go to a JSON-lines
file as they come, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ttt_core import AdaptationConfig, TTTEngine
from ttt_core.sandbox import Registry, is_correct, make_registry

IN_CONTEXT = "in-context"
ARMS = (IN_CONTEXT, "random_span", "recurrence", "cloze")
FIRST_SEED = 9_000  # Documents that no recipe, default or test has seen.
RESAMPLES = 10_000


def main() -> None:
    """Run what is missing, then print the table."""
    options = _parse()
    rows = _load(options.output)
    engine = TTTEngine.from_pretrained(store=tempfile.mkdtemp())
    for lines, parametrization, arm in _cells(options):
        for seed in range(FIRST_SEED, FIRST_SEED + options.documents):
            key = (lines, parametrization, arm, seed, options.questions)
            if key not in rows:
                rows[key] = _run(engine, lines, parametrization, arm, seed, options.questions)
                _append(options.output, key, rows[key])
    for parametrization in options.parametrization:
        _print_table(rows, options, parametrization)


Key = tuple[int, str, str, int, int]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[64, 128, 256, 512, 1024, 2048])
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument(
        "--parametrization", nargs="+", default=["lora", "full"], choices=["lora", "full"]
    )
    parser.add_argument("--output", type=Path, default=Path("results/sandbox.jsonl"))
    return parser.parse_args()


def _cells(options: argparse.Namespace) -> Iterator[tuple[int, str, str]]:
    for lines in options.lines:
        for parametrization in options.parametrization:
            for arm in options.arms:
                yield lines, parametrization, arm


def _run(
    engine: TTTEngine, lines: int, parametrization: str, arm: str, seed: int, questions: int
) -> dict[str, object]:
    registry = make_registry(lines, seed=seed, questions=questions)
    started = time.perf_counter()
    if arm == IN_CONTEXT:
        document = engine.read(registry.text)
    else:
        config = AdaptationConfig.model_validate(
            {"parametrization": parametrization, "supervision": arm}
        )
        document = engine.adapt(registry.text, config=config)
    seconds = time.perf_counter() - started
    answers = engine.generate_batch(
        document, [question.text for question in registry.questions], max_new_tokens=16
    )
    engine.reset()
    report = document.report
    return {
        "tokens": len(document.prefix),
        "correct": _correct(registry, [answer.text for answer in answers]),
        "seconds": seconds,
        "decision": report.decision if report else "",
        "learning_rate": report.learning_rate if report else None,
        "steps": report.steps if report else 0,
        "gain": report.probe.gain if report and report.probe else None,
        "drift": report.drift if report else None,
    }


def _correct(registry: Registry, texts: Sequence[str]) -> list[int]:
    pairs = zip(texts, registry.questions, strict=True)
    return [int(is_correct(text, question)) for text, question in pairs]


def _load(path: Path) -> dict[Key, dict[str, object]]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {tuple(line.pop("key")): line for line in lines}


def _append(path: Path, key: Key, row: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"key": key, **row}) + "\n")
    note = f"{row['decision'] or 'read'}, {np.mean(row['correct']):.2f} right"
    print(f"  {key}: {note}, {row['seconds']:.0f} s", flush=True)


def _print_table(
    rows: dict[Key, dict[str, object]], options: argparse.Namespace, parametrization: str
) -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + options.documents)
    n = options.documents * options.questions
    print(
        f"\n{parametrization}: {options.documents} documents x {options.questions} questions "
        f"(n = {n}); accuracy, difference from in-context [95 %], documents adapted\n"
    )
    others = [arm for arm in options.arms if arm != IN_CONTEXT]
    extra = ["cloze - random_span"] if {"cloze", "random_span"} <= set(others) else []
    print("| lines (tokens) | " + " | ".join([IN_CONTEXT, *others, *extra]) + " |")
    print("|---" * (2 + len(others) + len(extra)) + "|")
    for lines in options.lines:
        cells = {
            arm: [rows[lines, parametrization, arm, seed, options.questions] for seed in seeds]
            for arm in options.arms
        }
        scores = {arm: np.array([row["correct"] for row in cells[arm]]) for arm in options.arms}
        base = scores[IN_CONTEXT]
        text = [f"{lines:,} ({cells[IN_CONTEXT][0]['tokens']:,})", f"{base.mean():.2f}"]
        for arm in others:
            adapted = sum(row["decision"] == "adapted" for row in cells[arm])
            text.append(f"{scores[arm].mean():.2f}, {_difference(scores[arm] - base)}, {adapted}")
        if extra:
            text.append(_difference(scores["cloze"] - scores["random_span"]))
        print("| " + " | ".join(text) + " |")


def _difference(difference: np.ndarray) -> str:
    low, high = bootstrap_interval(difference)
    return f"{100 * difference.mean():+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"


def bootstrap_interval(difference: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, shape (documents, questions)."""
    rng = np.random.default_rng(seed)
    documents, questions = difference.shape
    picked = rng.integers(documents, size=(RESAMPLES, documents, 1))
    asked = rng.integers(questions, size=(RESAMPLES, documents, questions))
    means = difference[picked, asked].mean(axis=(1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
