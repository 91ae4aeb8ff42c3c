"""The transaction log of the paper: find the one entry that breaks the rules, and say how.

After Bansal et al. (arXiv 2512.13898), whose generator is not public; the form of the lines and the
four kinds of anomaly are theirs. What was found wrong with such logs is mended: ids are consecutive
whatever the anomaly is (a duplicate is an entry more, with an id of its own), and the chance of a
guess, which falls as the log grows, is stated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.lengths import check_length
from ttt_core.sandbox.tasks.seeds import stream
from ttt_core.sandbox.tasks.transaction_log import BUG_TYPES, SHORTEST, Log, entry_id, make_log

_RULES = """Rules:
- No balance is ever negative.
- A transfer takes the amount from the first account and adds it to the second one.
- An entry starts from the balances that the latest entries on its two accounts left.
- Every transfer is recorded once, and every id is used once.
"""

_QUESTION = """Exactly one entry of the transaction log breaks the rules. Which one, and how?
- CALC_ERROR: a balance after the transfer is not the balance before it plus or minus the amount.
- NEGATIVE_BAL: a balance after the transfer is negative.
- LOST_UPDATE: an entry starts from an old balance, so that a later update is lost.
- DUPLICATE_TXN: an entry repeats an earlier entry under a new id, amount and balances the same \
(that is no LOST_UPDATE).
Answer with JSON only, for example: {"bug_type": "CALC_ERROR", "bug_location": "TX004"}"""

# Quotes, colons, brackets and white space may stand between a key and its value.
_TYPE = re.compile(r"bug_type\W{1,8}(\w+)", re.IGNORECASE)
# More digits are no entry's, and very many Python refuses to make a number of.
_LOCATION = re.compile(r"bug_location\W{1,8}TX0*(\d{1,9})(?!\d)", re.IGNORECASE)


class Transactions:
    """One question a log: kind and place of its anomaly, right only if both are.

    Chance is that of a uniform guess among 4 kinds and n entries, 1 / (4 n); of the kind alone it
    is 1 / 4, of the place alone 1 / n. Kinds take turns, so that any four examples in a row have
    all of them; places are uniform but for the first sixteenth, where no anomaly is.

    What stays while the log grows: the anomalous entry with its accounts, amount and balances, the
    entry that it conflicts with (at most 8 entries before it), everything in a shorter log, and
    the anomaly's relative depth. What changes: the ids, which count from the beginning, and the
    initial balances.
    """

    name = "transactions"
    description = "Which entry of a transaction log is wrong, and how?"
    unit = "operations"
    lengths: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    max_new_tokens = 64

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield logs of `length` entries, one question each; see `Task`.

        Raises:
            ConfigError: `length` is below 16.
        """
        entries = check_length(length, self.unit, least=SHORTEST)
        return (self._example(entries, split, seed, index) for index in range(count))

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the last kind and the last place that the answer gives are both right."""
        return float(all(self.score_parts(answer, question)))

    def score_parts(self, answer: str, question: Question) -> tuple[bool, bool]:
        """Tell whether the kind is right, and whether the place is."""
        kind, place = read_answer(question.references[0])
        told_kind, told_place = read_answer(answer)
        return told_kind == kind, told_place == place

    def _example(self, length: int, split: Split, seed: int, index: int) -> Example:
        first = stream(self.name, split, seed, 0, "kinds").randrange(len(BUG_TYPES))
        bug_type = BUG_TYPES[(first + index) % len(BUG_TYPES)]
        needle = stream(self.name, split, seed, index, "needle")
        haystack = stream(self.name, split, seed, index, "haystack")
        log = make_log(length, bug_type, needle, haystack)
        return Example(f"{split}-{seed}-{index}", write_log(log), (_question(log),), length)


def write_log(log: Log) -> str:
    """Write the document: initial balances, rules, entries."""
    balances = ", ".join(f"{account}={balance}" for account, balance in log.initial.items())
    entries = "\n".join(entry.write(number) for number, entry in enumerate(log.entries, 1))
    return f"Initial balances: {balances}\n{_RULES}Transaction log:\n{entries}\n"


def read_answer(answer: str) -> tuple[str | None, int | None]:
    """Read kind and place off an answer, JSON or nearly so anywhere in it; None: not said."""
    kinds, places = _TYPE.findall(answer), _LOCATION.findall(answer)
    return kinds[-1].upper() if kinds else None, int(places[-1]) if places else None


def _question(log: Log) -> Question:
    numbers = [log.bug] if log.other is None else [log.bug, log.other]
    place = entry_id(log.bug)
    return Question(
        id="0",
        text=_QUESTION,
        references=(f'{{"bug_type": "{log.bug_type}", "bug_location": "{place}"}}',),
        chance=1 / (len(BUG_TYPES) * len(log.entries)),
        needles=tuple(log.entries[number - 1].write(number) for number in numbers),
        groups={"bug_type": log.bug_type},
    )
