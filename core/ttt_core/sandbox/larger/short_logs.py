"""Transaction logs that are shorter than the task's: a stretch of one, with its anomaly in it.

A model that starts from nothing needs logs of four entries before it can read sixteen.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

from ttt_core.examples import Example, Question, Task
from ttt_core.sandbox.tasks.transaction_log import BUG_TYPES, SHORTEST, Log, entry_id, make_log
from ttt_core.sandbox.tasks.transactions import write_log


def draw_log_example(task: Task, length: int, rng: Random) -> Example:
    """Draw a log of about `length` entries: longer if what the anomaly conflicts with is farther.

    Args:
        task: The transactions task; its question is asked.
        length: At least one.
        rng: All draws come from here.
    """
    bug_type = rng.choice(BUG_TYPES)
    needle, haystack = Random(rng.getrandbits(63)), Random(rng.getrandbits(63))
    log = crop(make_log(max(length, SHORTEST), bug_type, needle, haystack), length, rng)
    asked = next(iter(task.examples(SHORTEST, split="tune", seed=0, count=1))).questions[0]
    location = entry_id(log.bug)
    answer = json.dumps({"bug_type": log.bug_type, "bug_location": location})
    question = Question(id="0", text=asked.text, references=(answer,))
    return Example("log", write_log(log), (question,), len(log.entries))


def crop(log: Log, length: int, rng: Random) -> Log:
    """Cut a stretch of `length` entries out of a log, or more: never what belongs to its anomaly.

    The initial balances are those before the first entry that is left.
    """
    first_needed = log.bug if log.other is None else log.other
    length = min(len(log.entries), max(length, log.bug - first_needed + 1))
    start = rng.randint(max(0, log.bug - length), min(first_needed - 1, len(log.entries) - length))
    balances = dict(log.initial)
    for entry in log.entries[:start]:
        balances |= {entry.source: entry.source_after, entry.target: entry.target_after}
    return replace(
        log,
        initial=balances,
        entries=log.entries[start : start + length],
        bug=log.bug - start,
        other=None if log.other is None else log.other - start,
    )
