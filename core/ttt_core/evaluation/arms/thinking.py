"""Thinking for as many FLOPs as adapting would have taken: the paper's equal-compute baseline.

Bansal et al., arXiv 2512.13898, 3.3 and App. C: T_think solves generate(T_think; T) = the FLOPs of
adapting, about 2 N k tokens for N steps of k positions. A model whose template knows thinking
thinks in its own tags; any other gets the paper's scratchpad, and answers behind `Final:`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ttt_core.evaluation.arms.adapting import Adapted, adapt_each
from ttt_core.evaluation.arms.base import ArmResult, Reply, questions, reply
from ttt_core.evaluation.arms.options import RecipeOptions, settings_of, spec_of
from ttt_core.flops import thinking_tokens

if TYPE_CHECKING:
    from pydantic import JsonValue

    from ttt_core.adapted import AdaptedDocument
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example

FINAL = "Final:"
"""Behind it stands the answer (the paper's prompt, App. D)."""

_SCRATCHPAD = (
    "{question}\n\nThink step by step first, in at most {budget} tokens. Then write '"
    + FINAL
    + "' and behind it nothing but the answer."
)


class ThinkingOptions(RecipeOptions):
    """The recipe whose FLOPs are matched, and how."""

    budget: int | None = Field(default=None, ge=1)
    """Thinking tokens a question; None: as many as the recipe's FLOPs buy."""
    amortised: bool = False
    """Divide the FLOPs of adapting by the number of questions: thinking is paid for each."""


class Thinking:
    """The base model thinks before each answer, for the FLOPs of adapting to this document."""

    description = "the base model thinks first, for as many FLOPs as adapting takes"
    options_kind = ThinkingOptions

    def __init__(self, options: ThinkingOptions) -> None:
        self._options = options
        self.name = spec_of("thinking", options)
        self.settings: dict[str, JsonValue] = settings_of(options)

    def run(self, bench: Bench, example: Example) -> ArmResult:
        """See `Arm`."""
        document = bench.read(example)
        budgets = self._budgets(bench, example, document)
        started = time.perf_counter()
        replies = think(bench, [document] * len(budgets), example, budgets)
        return ArmResult(
            n_tokens=document.n_tokens,
            replies=replies,
            document_flops={"read": bench.read_flops(example)},
            document_seconds={"read": bench.read_seconds(example)},
            seconds=time.perf_counter() - started,
            details={"way": way(bench)},
        )

    def _budgets(self, bench: Bench, example: Example, document: AdaptedDocument) -> list[int]:
        if self._options.budget is not None:
            return [self._options.budget] * len(example.questions)
        adapted = adapt_each(bench, example, self._options.recipe)
        share = len(adapted) if self._options.amortised else 1
        return [budget(bench, document, one, share=share) for one in adapted]


def budget(bench: Bench, document: AdaptedDocument, adapted: Adapted, *, share: int = 1) -> int:
    """How many tokens may be thought behind the document for the FLOPs of adapting to it.

    Args:
        bench: The model.
        document: What is read.
        adapted: What is matched.
        share: Among how many questions the part that is spent once a document is divided.
    """
    flops = adapted.shared_flops / share + adapted.own_flops
    return thinking_tokens(bench.architecture, flops, document.n_tokens)


def way(bench: Bench) -> str:
    """Name how this model is made to think."""
    return "scratchpad" if bench.thinking_tags is None else "template"


def think(
    bench: Bench,
    documents: Sequence[AdaptedDocument],
    example: Example,
    budgets: Sequence[int],
) -> tuple[Reply, ...]:
    """Answer questions after thinking, each with its document; what is alike together.

    Budgets that the window has no room for are cut, and `details` says so.

    Raises:
        PromptTooLongError: Not even the answer fits.
    """
    asked, rooms = questions(example), bench.rooms(example)
    kept = [
        min(wanted, _left(bench, document, question, room))
        for document, question, room, wanted in zip(documents, asked, rooms, budgets, strict=True)
    ]
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (document, allowed) in enumerate(zip(documents, kept, strict=True)):
        groups.setdefault((id(document), allowed), []).append(index)
    replies: dict[int, Reply] = {}
    for (_, allowed), members in groups.items():
        texts, ends = [asked[i] for i in members], [rooms[i] for i in members]
        answers = _think(bench, documents[members[0]], texts, ends, allowed)
        for index, one in zip(members, answers, strict=True):
            details = {**one.details, "budget": allowed, "budget_wanted": budgets[index]}
            replies[index] = _with(one, details=details)
    return tuple(replies[index] for index in range(len(asked)))


def _think(
    bench: Bench,
    document: AdaptedDocument,
    asked: Sequence[str],
    rooms: Sequence[int],
    allowed: int,
) -> list[Reply]:
    if allowed < 1:  # Nothing to think with: this is in-context.
        return [reply(bench, document, one) for one in bench.ask(document, asked, rooms)]
    if bench.thinking_tags is not None:
        tags = _tag_tokens(bench)
        answers = bench.ask(
            document,
            asked,
            [allowed + room + tags for room in rooms],
            enable_thinking=True,
            thinking_budget=allowed,
        )
        return [
            _with(reply(bench, document, one), details={"thought": one.usage.reasoning_tokens})
            for one in answers
        ]
    prompts = [_SCRATCHPAD.format(question=text, budget=allowed) for text in asked]
    answers = bench.ask(document, prompts, [allowed + room for room in rooms])
    return [_behind_final(reply(bench, document, one)) for one in answers]


def _behind_final(one: Reply) -> Reply:
    """Score what stands behind the last `Final:`; all of it where the model wrote none."""
    _, final, answer = one.text.rpartition(FINAL)
    # No more than what divides them: in code, white space in front belongs to the answer.
    answer = answer.removeprefix(" ").removeprefix("\n").rstrip() if final else answer
    return _with(one, text=answer, details={"final": bool(final)})


def _left(bench: Bench, document: AdaptedDocument, question: str, room: int) -> int:
    """How many tokens the window has left for thinking."""
    prompt = _SCRATCHPAD.format(question=question, budget=10**6)
    asked = bench.engine.count_prompt_tokens(prompt)
    behind = asked + room + _tag_tokens(bench)
    return max(bench.engine.window - document.n_tokens - behind, 0)


def _tag_tokens(bench: Bench) -> int:
    return sum(bench.engine.count_tokens(tag) for tag in bench.thinking_tags or ())


def _with(one: Reply, **changes: Any) -> Reply:
    from dataclasses import replace

    return replace(one, **changes)
