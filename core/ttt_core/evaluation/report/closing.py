"""How a report ends: what failed, what was chosen on which data, and how it was measured."""

from __future__ import annotations

import json
from collections import Counter

from ttt_core.evaluation.analysis.digits import points
from ttt_core.evaluation.analysis.statistics import FEWEST_DOCUMENTS, RESAMPLES
from ttt_core.evaluation.analysis.verdict import RELEVANT
from ttt_core.evaluation.report.gathering import Findings
from ttt_core.evaluation.report.sheet import Sheet

_MOST_MESSAGES = 20

_METHOD = (
    "Every arm answers the same questions on the same documents, so arms are compared pair by "
    "pair: the score of one on a question, less the score of the other on the same question. "
    "Questions that only one of them answered are left out of differences, and counted.",
    "The unit is the document, not the question: questions on one document share its luck. A "
    "document of another seed is another document; its lengths count as one document where "
    "lengths are taken together, since needle and questions are the same, and so do examples of "
    "one source, such as a story that several of them ask about.",
    f"Intervals (95 %) are percentiles of {RESAMPLES:,} bootstrap samples, which draw documents "
    "and then questions within them, with replacement; over several tasks each task counts the "
    "same and is drawn on its own. Over few documents they are a little too narrow.",
    "P-values are two-sided. Where scores are 0 or 1 and each document has one question: the "
    "exact sign test (McNemar). Else: a permutation test that flips the signs of whole "
    "documents; all of them for up to 13 documents that differ, else 9,999 at random.",
    "Within a table, p-values are corrected by Holm for the number of comparisons in it, so that "
    "the chance of any false bold figure in a table is at most 5 %. Control arms (lr-zero, chance) "
    "are not compared. Tables of tasks and of groups are corrected each on its own: whoever "
    "reads many tables will meet a false one.",
    f"With fewer than {FEWEST_DOCUMENTS} documents nothing can be significant, and nothing is "
    "shown so: with five, even five wins of five have p = 0.06.",
    "'Found from' comes from the observed spread of the differences and Student's t; with hardly "
    "more documents than any significance takes it promises a little too much.",
    "Points have a decimal only where the standard error is below a point.",
)

_RULE = (
    "Adapt: over all tasks and lengths, some adapting arm is above in-context with p < 0.05 after "
    f"Holm's correction over the arms, on at least {FEWEST_DOCUMENTS} documents. Don't adapt: "
    f"there are at least {FEWEST_DOCUMENTS} documents, and each adapting arm is significantly "
    f"below in-context, or its interval ends below {100 * RELEVANT:.0f} points; where no score "
    "was better on any of n documents, the end is the most that could be gained: 1 - 0.05^(1/n) of "
    "what in-context leaves to gain. Else there is not enough evidence, and whenever lr-zero "
    "answers unlike in-context, since then something is broken. An arm that does not adapt and is "
    "significantly better than the best adapting one, in their own paired comparison, is named "
    "in the same sentence."
)


def add_failures(sheet: Sheet, findings: Findings) -> None:
    """What was not done or went wrong; a report without this would flatter."""
    sheet.add_heading("Failures and gaps")
    notes = [f"{m.model}, {note}" for m in findings.summary.models for note in m.missing]
    failed = Counter(
        (cell.key.arm, cell.failure.kind, cell.failure.message)
        for cell in findings.cells
        if cell.failure
    )
    if not notes and not failed:
        sheet.add_text("None: each arm answered on each document.")
        return
    sheet.add_list(notes)
    if failed:
        ranked = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
        rows = [[*names, f"{count:,}"] for names, count in ranked[:_MOST_MESSAGES]]
        more = len(ranked) - len(rows)
        caption = f"and {more} further kinds" if more > 0 else ""
        sheet.add_table(["arm", "error", "message", "cells"], rows, caption=caption, align="lllr")


def add_choices(sheet: Sheet, findings: Findings) -> None:
    """What was tuned, and on what."""
    sheet.add_heading("What was chosen, and on which data")
    if not findings.choices:
        sheet.add_text("Nothing was tuned in this evaluation: all options are as named above.")
        return
    sheet.add_text("Chosen by mean score on examples of the tune split, none of which is scored.")
    rows = [
        [
            choice.model,
            choice.task,
            choice.arm,
            f"{choice.option}={choice.chosen}",
            ", ".join(f"{v}: {points(s, choice.questions)}" for v, s in choice.scores.items()),
            f"{choice.questions:,} / {choice.examples:,}",
        ]
        for choice in sorted(findings.choices, key=lambda c: (c.model, c.task, c.arm, c.option))
    ]
    header = ["model", "task", "arm", "chosen", "scores by value", "questions / examples"]
    sheet.add_table(header, rows, align="lllllr")


def add_settings(sheet: Sheet, findings: Findings) -> None:
    """All options of each arm, defaults included, folded away."""
    tasks: dict[tuple[str, str], set[str]] = {}
    for cell in findings.cells:
        options = json.dumps(cell.key.settings, sort_keys=True, ensure_ascii=False)
        tasks.setdefault((cell.key.arm, options), set()).add(cell.key.task)
    rows = [[arm, ", ".join(sorted(where)), o] for (arm, o), where in sorted(tasks.items())]
    part = sheet.add_details("All options of each arm")
    part.add_table(["arm", "tasks", "options"], rows, align="lll")


def add_method(sheet: Sheet) -> None:
    """The statistics in plain words, and the rule of the verdict."""
    sheet.add_heading("How it was measured")
    sheet.add_list(_METHOD)
    sheet.add_heading("The rule of the verdict", 3)
    sheet.add_text(_RULE)
