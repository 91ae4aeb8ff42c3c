"""What holds for every supervision, whatever it selects: seeds, true labels, what is held out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.supervision.fakes import FakeBase, make_given
from ttt_core.config import QUESTION_SUPERVISIONS, AdaptationConfig, SupervisionName
from ttt_core.errors import ConfigError
from ttt_core.packed import IGNORE, PackedBatch
from ttt_core.supervision import (
    Given,
    Passage,
    TokenizedDocument,
    get_supervision,
)
from ttt_core.supervision.self_study import PROMPT

ALL: tuple[SupervisionName, ...] = get_args(SupervisionName)

SHIPS = ["Aurora", "Borealis", "Cygnus", "Draco", "Electra", "Fornax", "Gemini", "Hydra"]
PORTS = ["Oslo", "Rome", "Kyiv", "Lima", "Cairo", "Quito", "Perth"]
LINES = [
    f"The {ship} number {n} left {PORTS[(i * n + n) % 7]} on day {i * 7 + n * 11}."
    for n in range(3)
    for i, ship in enumerate(SHIPS)
]
QUESTION = "When did the Draco number 1 leave?"


def reply(prompt: str) -> str:
    """Quote lines that are asked about; ask about passages; answer with a line."""
    head = PROMPT.partition("{")[0]
    if prompt.startswith(head):
        passage = prompt.rpartition("Passage: ")[2]
        return f"What about {' '.join(passage.split()[1:4])}?"
    found = [line for line in LINES if " ".join(line.split()[1:4]) in prompt]
    quotes = found or LINES[8:14]
    if "<quote>" in prompt:
        return "\n".join(f"<quote>{line}</quote>" for line in quotes)
    return quotes[0]


def base_of(tokenizer: PreTrainedTokenizerFast) -> FakeBase:
    return FakeBase("\n".join(LINES), tokenizer, reply)


def needs_question(name: SupervisionName) -> bool:
    return AdaptationConfig(supervision=name).needs_question


def about(name: SupervisionName, base: FakeBase, **options: Any) -> Given:
    question = QUESTION if needs_question(name) else None
    return make_given(base, base.document, question=question, supervision=name, **options)


def first_batches(name: SupervisionName, given: Given, count: int) -> list[PackedBatch]:
    return list(islice(get_supervision(name)(given).batches(), count))


def values(batches: list[PackedBatch]) -> list[list[int]]:
    return [[*b.input_ids.tolist(), *b.position_ids.tolist(), *b.labels.tolist()] for b in batches]


def test_there_is_a_supervision_for_every_name_that_a_recipe_may_have() -> None:
    kinds = [get_supervision(name) for name in ALL]
    assert len(set(kinds)) == len(ALL)
    assert {name for name in ALL if needs_question(name)} == set(QUESTION_SUPERVISIONS)


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_the_batches(
    name: SupervisionName, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = base_of(tokenizer)

    def seeded(seed: int) -> list[list[int]]:
        small = {"seed": seed, "span_length": 20, "clozes_per_step": 3}
        return values(first_batches(name, about(name, base, **small), 6))

    assert len(seeded(1)) == 6
    assert seeded(1) == seeded(1)
    assert seeded(1) != seeded(2)


@pytest.mark.parametrize("name", ALL)
def test_batches_begin_anew_for_every_learning_rate(
    name: SupervisionName, tokenizer: PreTrainedTokenizerFast
) -> None:
    supervision = get_supervision(name)(about(name, base_of(tokenizer), span_length=20))
    first = values(list(islice(supervision.batches(), 4)))
    assert values(list(islice(supervision.batches(), 4))) == first


@pytest.mark.parametrize("name", ALL)
@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 99),
    span_length=st.integers(3, 40),
    secret=st.sets(st.integers(0, len(LINES) - 1), max_size=16),
)
def test_labels_are_true_successors_and_never_held_out(
    name: SupervisionName,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    span_length: int,
    secret: set[int],
) -> None:
    base = base_of(tokenizer)
    document = base.document
    held_out = [document.passages[i] for i in sorted(secret) if i < len(document.passages)]
    options = {"seed": seed, "span_length": span_length, "clozes_per_step": 4}
    batches = first_batches(name, about(name, base, held_out=held_out, **options), 12)
    assert batches
    for batch in batches:
        if batch.segment_ids is None:
            check_in_place(batch, document, held_out)
        else:
            check_behind(batch, document, held_out)


@pytest.mark.parametrize("name", ["random_span", "recurrence", "high_loss", "mixture"])
def test_what_is_held_out_is_not_learnt_where_it_comes_back(
    name: SupervisionName, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A notice on every page: it is one passage, and would be trained on at its other places."""
    notice = "All rights are reserved."
    base = FakeBase("\n".join([notice, *LINES[:9], notice, *LINES[9:], notice]), tokenizer, reply)
    document = base.document
    held_out = [document.passages[0]]
    secret = document.input_ids[slice(*held_out[0])]
    assert base.decode(secret) == notice
    places = [
        set(range(i, i + len(secret)))
        for i in range(len(document.input_ids))
        if document.input_ids[i : i + len(secret)] == secret
    ]
    assert len(places) == 3
    for batch in first_batches(name, about(name, base, held_out=held_out), 60):
        if batch.segment_ids is None:
            learnt = set((batch.position_ids[batch.labelled] + 1).tolist())
            assert not any(place & learnt for place in places)


def check_in_place(
    batch: PackedBatch, document: TokenizedDocument, held_out: list[Passage]
) -> None:
    ids = torch.tensor(document.input_ids)
    learnt = batch.position_ids[batch.labelled] + 1
    assert len(learnt)
    assert (batch.position_ids.diff() > 0).all()
    assert torch.equal(ids[batch.position_ids], batch.input_ids)
    assert torch.equal(ids[learnt], batch.targets)
    assert document.start < learnt.min()
    assert learnt.max() < document.end
    assert not {i for p in held_out for i in range(p.start, p.end)} & set(learnt.tolist())


def check_behind(batch: PackedBatch, document: TokenizedDocument, held_out: list[Passage]) -> None:
    secrets = [document.input_ids[p.start : p.end] for p in held_out]
    for tail, labels in segments(batch):
        at = [i for i, label in enumerate(labels) if label != IGNORE]
        assert at == list(range(at[0], len(labels)))  # One end of the tail is learnt.
        assert [tail[i + 1] for i in at[:-1]] == [labels[i] for i in at[:-1]]
        told = (*tail, labels[-1])
        assert not any(holds(told, secret) for secret in secrets)


def segments(batch: PackedBatch) -> Iterator[tuple[list[int], list[int]]]:
    assert batch.segment_ids is not None
    for segment in range(int(batch.segment_ids.max()) + 1):
        own = batch.segment_ids == segment
        yield batch.input_ids[own].tolist(), batch.labels[own].tolist()


def holds(ids: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


@pytest.mark.parametrize("name", QUESTION_SUPERVISIONS)
@pytest.mark.parametrize("question", [None, " "])
def test_a_question_that_is_needed_has_to_be_there(
    name: SupervisionName, question: str | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = base_of(tokenizer)
    without = make_given(base, base.document, question=question, supervision=name)
    with pytest.raises(ConfigError, match=f"{name} supervision .* question="):
        get_supervision(name)(without)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_trained_on_when_all_is_held_out(
    name: SupervisionName, tokenizer: PreTrainedTokenizerFast
) -> None:
    base = base_of(tokenizer)
    document = base.document
    everything = [*document.passages, Passage(document.start, document.end)]
    assert not first_batches(name, about(name, base, held_out=everything), 1)
