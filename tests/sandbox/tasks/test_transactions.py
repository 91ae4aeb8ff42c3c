"""Every generated log has exactly one anomaly, the named one, and ids give nothing away."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.examples import Example
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.tasks.transaction_check import Anomaly, check_log
from ttt_core.sandbox.tasks.transaction_log import BUG_TYPES, BugType, Log, make_log
from ttt_core.sandbox.tasks.transactions import Transactions, read_answer, write_log

TASK = Transactions()
SEEDS = st.integers(0, 2**32)
LENGTHS = st.integers(16, 120)


def draw(length: int, seed: int = 0, count: int = 1) -> list[Example]:
    return list(TASK.examples(length, split="score", seed=seed, count=count))


def logged(length: int, bug_type: BugType, seed: int) -> Log:
    needle, haystack = (stream("t", "score", seed, 0, each) for each in ("needle", "haystack"))
    return make_log(length, bug_type, needle, haystack)


def lines(document: str) -> list[str]:
    return [line for line in document.splitlines() if line.startswith("[")]


@settings(max_examples=60)
@given(length=LENGTHS, seed=SEEDS, bug_type=st.sampled_from(BUG_TYPES))
def test_exactly_one_anomaly_of_the_named_kind_at_the_named_place(
    length: int, seed: int, bug_type: BugType
) -> None:
    log = logged(length, bug_type, seed)
    text = write_log(log)
    assert check_log(text) == [Anomaly(bug_type, f"TX{log.bug:03}")]
    assert len(lines(text)) == length


@pytest.mark.parametrize("length", [25, 400])
def test_questions_say_what_the_checker_finds(length: int) -> None:
    for example in draw(length, seed=2, count=4):
        [question] = example.questions
        [(kind, place)] = check_log(example.document)
        assert TASK.score(f'{{"bug_type": "{kind}", "bug_location": "{place}"}}', question) == 1
        assert question.needles[0].startswith(f"[{place}]: ")
        assert question.groups == {"bug_type": kind}


@given(length=LENGTHS, seed=SEEDS, bug_type=st.sampled_from(BUG_TYPES))
def test_without_the_anomalous_entry_only_what_followed_from_it_is_wrong(
    length: int, seed: int, bug_type: BugType
) -> None:
    """The log up to the anomaly is clean, so the checker's finding is the entry's own doing."""
    log = logged(length, bug_type, seed)
    before = Log(log.initial, log.entries[: log.bug - 1], bug_type, log.bug, None)
    assert check_log(write_log(before)) == []


@given(length=LENGTHS, seed=SEEDS, bug_type=st.sampled_from(BUG_TYPES))
def test_ids_are_consecutive_whatever_is_wrong(length: int, seed: int, bug_type: BugType) -> None:
    ids = re.findall(r"^\[(TX\d+)\]", write_log(logged(length, bug_type, seed)), re.MULTILINE)
    assert ids == [f"TX{number:03}" for number in range(1, length + 1)]


@settings(max_examples=30)
@given(short=LENGTHS, more=st.integers(1, 200), seed=SEEDS, bug_type=st.sampled_from(BUG_TYPES))
def test_a_longer_log_has_the_shorter_one_inside_it(
    short: int, more: int, seed: int, bug_type: BugType
) -> None:
    one, two = logged(short, bug_type, seed), logged(short + more, bug_type, seed)
    shift = two.bug - one.bug
    assert two.entries[shift : shift + short] == one.entries
    assert (one.other is None) == (two.other is None)
    if one.other is not None:
        assert two.other == one.other + shift
        assert 1 <= one.other < one.bug


def test_needles_are_the_entry_and_the_one_that_it_conflicts_with() -> None:
    for example in draw(100, seed=1, count=4):
        [question] = example.questions
        contents = [needle.partition(": ")[2] for needle in question.needles]
        paired = question.groups["bug_type"] in ("LOST_UPDATE", "DUPLICATE_TXN")
        assert len(contents) == 1 + paired
        if question.groups["bug_type"] == "DUPLICATE_TXN":
            assert contents[0] == contents[1]
        if question.groups["bug_type"] == "LOST_UPDATE":
            # Both start from the same balance of the account whose update was lost.
            starts = [set(re.findall(r"[A-F]=\d+ ->", content)) for content in contents]
            assert starts[0] & starts[1]


def test_kinds_take_turns_and_places_are_everywhere() -> None:
    examples = draw(25, seed=3, count=400)
    found = [check_log(example.document)[0] for example in examples]
    assert Counter(kind for kind, _ in found) == dict.fromkeys(BUG_TYPES, 100)
    places = Counter(int(place[2:]) for _, place in found)
    # 400 draws over 24 places, about 17 each: an empty one has a chance of e^-17.
    assert set(range(3, 26)) <= set(places)
    assert max(places.values()) < 40


def test_uniform_guesses_score_as_chance_says() -> None:
    [example] = draw(25)
    [question] = example.questions
    guesses = [
        f'{{"bug_type": "{kind}", "bug_location": "TX{number:03}"}}'
        for kind in BUG_TYPES
        for number in range(1, 26)
    ]
    # One of 4 kinds x 25 entries.
    assert question.chance == 1 / 100
    assert sum(TASK.score(guess, question) for guess in guesses) / len(guesses) == 1 / 100
    parts = [TASK.score_parts(guess, question) for guess in guesses]
    assert sum(kind for kind, _ in parts) / len(guesses) == 1 / 4
    assert sum(place for _, place in parts) / len(guesses) == 1 / 25


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ('{"bug_type": "CALC_ERROR", "bug_location": "TX004"}', ("CALC_ERROR", 4)),
        ("{'bug_type': 'calc_error', 'bug_location': 'tx4'}", ("CALC_ERROR", 4)),
        ('```json\n{\n  "bug_location": "[TX1004]",\n  "bug_type": "Lost_Update"\n}\n```',
         ("LOST_UPDATE", 1004)),
        ('First {"bug_type": "CALC_ERROR", "bug_location": "TX001"}, no: '
         '{"bug_type": "NEGATIVE_BAL", "bug_location": "TX002"}', ("NEGATIVE_BAL", 2)),
        ("bug_type: DUPLICATE_TXN, bug_location: TX010", ("DUPLICATE_TXN", 10)),
        ("TX004 is a CALC_ERROR", (None, None)),
        ('{"bug_type": "CALC_ERROR"', ("CALC_ERROR", None)),
        ("bug_type: DUPLICATE_TXN, bug_location: TX" + "1" * 5000, ("DUPLICATE_TXN", None)),
        ("", (None, None)),
    ],
)  # fmt: skip
def test_answers_are_read_leniently(answer: str, read: tuple[str | None, int | None]) -> None:
    assert read_answer(answer) == read


HEAD = "Initial balances: A=100, B=50\n"
FIRST = "[TX001]: Transfer $10: A=100 -> 90, B=50 -> 60\n"


@pytest.mark.parametrize(
    ("second", "kinds"),
    [
        ("[TX002]: Transfer $10: A=90 -> 80, B=60 -> 70", []),
        # 90 - 10 = 80, not 79.
        ("[TX002]: Transfer $10: A=90 -> 79, B=60 -> 70", ["CALC_ERROR"]),
        ("[TX002]: Transfer $10: A=90 -> 80, B=60 -> 71", ["CALC_ERROR"]),
        # 90 - 95 = -5, 60 + 95 = 155.
        ("[TX002]: Transfer $95: A=90 -> -5, B=60 -> 155", ["NEGATIVE_BAL"]),
        # B had 60, not 50 any more.
        ("[TX002]: Transfer $20: A=90 -> 70, B=50 -> 70", ["LOST_UPDATE"]),
        ("[TX002]: Transfer $10: A=100 -> 90, B=50 -> 60", ["DUPLICATE_TXN"]),
        ("[TX001]: Transfer $10: A=90 -> 80, B=60 -> 70", ["DUPLICATE_TXN"]),
        ("[TX002]: Transfer $95: A=100 -> -5, B=60 -> 155",
         ["CALC_ERROR", "NEGATIVE_BAL", "LOST_UPDATE"]),
    ],
)  # fmt: skip
def test_checker_finds_what_is_wrong_in_hand_made_logs(second: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in check_log(HEAD + FIRST + second)] == kinds


def test_checker_goes_on_from_what_was_written() -> None:
    wrong = "[TX002]: Transfer $10: A=90 -> 79, B=60 -> 70\n"
    then = "[TX003]: Transfer $9: A=79 -> 70, B=70 -> 79\n"
    assert check_log(HEAD + FIRST + wrong + then) == [Anomaly("CALC_ERROR", "TX002")]


def test_refuses_what_is_no_log_and_lengths_that_are_too_short() -> None:
    with pytest.raises(DocumentError, match="initial balances, found 0"):
        check_log(FIRST)
    with pytest.raises(ConfigError, match="at least 16, got 15"):
        TASK.examples(15, split="score", seed=0, count=1)
