"""Which cells may be compared: those of one model on the same questions, with everything counted.

A document is a task's example of one seed. Its lengths count as one document, since the needle and
the questions stay the same while the haystack grows; and so do draws of several seeds that bring up
the same content, as they do where a benchmark has few documents, and examples of one source, such
as a story that several examples ask about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttt_core.evaluation.analysis.statistics import Strata
    from ttt_core.evaluation.records import Cell, QuestionResult

REFERENCE = "in-context"
CHANCE = "chance"
CONTROLS = ("lr-zero", CHANCE)
"""Arms that check the others and are no candidates, so they take no share of the correction."""

Pair = tuple[str, int, str]
Keep = Callable[["QuestionResult"], bool]


def base_name(arm: str) -> str:
    """The arm's name without its options."""
    return arm.partition(" ")[0].partition(":")[0]


def adapts(cells: Iterable[Cell]) -> bool:
    """Whether an arm is a way of adapting, by what it did: the candidates of the verdict."""
    return any(cell.decisions for cell in cells)


def is_control(arm: str) -> bool:
    """Whether the arm only checks the others."""
    return base_name(arm) in CONTROLS


def reference_of(arms: Iterable[str]) -> str | None:
    """The arm that others are compared with; None: there is none."""
    names = sorted(arm for arm in arms if base_name(arm) == REFERENCE)
    return names[0] if names else None  # The plain name comes first.


def arm_order(arm: str) -> tuple[int, str]:
    """Reference first, then candidates and others by name, then controls."""
    rank = {REFERENCE: 0, "lr-zero": 2, CHANCE: 3}.get(base_name(arm), 1)
    return rank, arm


@dataclass(frozen=True)
class Pairs:
    """Paired values of two arms.

    Attributes:
        strata: One a task, in order of name; empty documents and tasks left out.
        cells: Documents at a length that both answered.
        unpaired: Those that only one of the two answered.
    """

    strata: Strata
    cells: int
    unpaired: int


def by_model(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Scored cells by model; models of one name and other weights are told apart.

    Arms that ask no model have no weights, and belong to each model of the name.
    """
    scored = [cell for cell in cells if cell.key.split == "score"]
    weights: dict[str, set[str]] = {}
    for cell in scored:
        weights.setdefault(cell.key.model, set()).add(cell.key.weights)
    models: dict[str, list[Cell]] = {}
    for name in sorted(weights):
        kinds = sorted(weights[name] - {""}) or [""]
        for kind in kinds:
            label = name if len(kinds) == 1 else f"{name} ({kind[:8]})"
            models[label] = [
                c for c in scored if c.key.model == name and c.key.weights in ("", kind)
            ]
    return models


def by_arm(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Cells by arm in the order of tables; arms of one name and other settings are told apart."""
    named: dict[str, list[Cell]] = {}
    for cell in cells:
        named.setdefault(cell.key.arm, []).append(cell)
    arms: dict[str, list[Cell]] = {}
    for name, found in named.items():
        # A tuned option has one value for each task; several for one task are several arms, as
        # they are after a default changed.
        settings = {(cell.key.task, _settings_mark(cell)) for cell in found}
        if len(settings) == len({task for task, _ in settings}):
            arms[name] = found
            continue
        for cell in found:
            arms.setdefault(f"{name} #{_settings_mark(cell)}", []).append(cell)
    return {name: arms[name] for name in sorted(arms, key=arm_order)}


def scores(cells: Iterable[Cell], keep: Keep | None = None) -> Strata:
    """Scores by task, document and question; failed cells are not among them."""
    found = _Gathered(sorted(cells, key=lambda cell: cell.key.order))
    for cell in found.cells:
        for question in cell.questions:
            if keep is None or keep(question):
                found.put(cell, question.score)
    return found.strata()


def pair(mine: Iterable[Cell], theirs: Iterable[Cell], keep: Keep | None = None) -> Pairs:
    """Differences, mine less theirs, on the questions that both answered."""
    ours = {cell.key.pair: cell for cell in mine if cell.questions}
    others = {cell.key.pair: cell for cell in theirs if cell.questions}
    both = sorted(ours.keys() & others.keys())
    found = _Gathered([ours[key] for key in both])
    for key in both:
        baseline = {question.id: question.score for question in others[key].questions}
        for question in ours[key].questions:
            if question.id in baseline and (keep is None or keep(question)):
                found.put(ours[key], question.score - baseline[question.id])
    return Pairs(found.strata(), len(both), len(ours.keys() ^ others.keys()))


def count_documents(cells: Iterable[Cell]) -> int:
    """How many documents are behind cells of any arms and lengths."""
    return len(set(_documents(list(cells)).values()))


def same_answers(mine: Iterable[Cell], theirs: Iterable[Cell]) -> tuple[int, int]:
    """How many questions both arms answered, and how many of them in the same words."""
    others = {cell.key.pair: cell for cell in theirs}
    asked = same = 0
    for cell in mine:
        other = others.get(cell.key.pair)
        texts = {question.id: question.text for question in other.questions} if other else {}
        for question in cell.questions:
            if question.id in texts:
                asked += 1
                same += texts[question.id] == question.text
    return asked, same


def adapted_share(cells: Sequence[Cell]) -> float | None:
    """Share of decisions to adapt, of documents or questions; None: nothing was decided."""
    decisions = [decision for cell in cells for decision in cell.decisions]
    return sum(d == "adapted" for d in decisions) / len(decisions) if decisions else None


def missing(arms: Mapping[str, Sequence[Cell]]) -> tuple[str, ...]:
    """Say what was not done or failed: whoever reads a mean has to know what it leaves out."""
    wanted = {cell.key.pair: cell for cells in arms.values() for cell in cells}
    notes = []
    for arm, cells in arms.items():
        failed = sum(cell.failure is not None for cell in cells)
        there = {cell.key.pair for cell in cells}
        absent = sorted({wanted[key].key.task for key in wanted.keys() - there})
        count = len(wanted.keys() - there)
        if count:
            notes.append(
                f"{arm}: {count} of {len(wanted)} cells are not there ({', '.join(absent)})"
            )
        if failed:
            notes.append(f"{arm}: {failed} of {len(cells)} cells failed")
    return (*notes, *_changed(cell for cells in arms.values() for cell in cells))


def _changed(cells: Iterable[Cell]) -> Iterable[str]:
    """Say which tasks have examples of one name and other content."""
    contents: dict[tuple[Pair, int | None], set[str]] = {}
    for cell in cells:
        contents.setdefault((_name(cell), cell.key.length), set()).add(cell.key.content)
    changed = [name[0] for (name, _), found in contents.items() if len(found) > 1]
    for task in sorted(set(changed)):
        yield (
            f"{task}: {changed.count(task)} examples are there in several versions, since data or "
            f"task changed between runs; figures mix them, so use an output folder for each"
        )


class _Gathered:
    """Values by task and document, in the order of the first cell of each."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self._documents = _documents(cells)
        self._found: dict[str, dict[Pair, list[float]]] = {}

    def put(self, cell: Cell, value: float) -> None:
        document = self._documents[_name(cell)]
        self._found.setdefault(cell.key.task, {}).setdefault(document, []).append(value)

    def strata(self) -> Strata:
        return [list(self._found[task].values()) for task in sorted(self._found)]


def _documents(cells: Sequence[Cell]) -> dict[Pair, Pair]:
    """For each task, seed and example, the first one that is the same document."""
    first: dict[Pair, Pair] = {}

    def find(name: Pair) -> Pair:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    known: dict[tuple[str, ...], Pair] = {}
    for cell in cells:
        marks: list[tuple[str, ...]] = [("content", cell.key.content)]
        marks += [("source", cell.key.task, cell.source)] if cell.source else []
        for mark in marks:
            low, high = sorted((find(known.setdefault(mark, _name(cell))), find(_name(cell))))
            first[high] = low
    return {name: find(name) for name in list(first)}


def _name(cell: Cell) -> tuple[str, int, str]:
    return (cell.key.task, cell.key.seed, cell.key.example)


def _settings_mark(cell: Cell) -> str:
    import hashlib
    import json

    text = json.dumps(cell.key.settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]
