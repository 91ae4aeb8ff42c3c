"""`ttt ask`: one question streamed, several in a batch, or a prompt for one after another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ttt_core.cli import console
from ttt_core.cli.failures import UsageProblem, describe
from ttt_core.cli.inputs import STDIN, Inputs, read_documents, read_question_lines
from ttt_core.cli.report import answer_json, document_json, figures, summary
from ttt_core.cli.work import learn, model_name, opened, warn_of_toy
from ttt_core.errors import TTTError

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine
    from ttt_core.cli.options import Setup
    from ttt_core.config import GenerationConfig
    from ttt_core.generate import Answer

BATCH = 16
"""Questions answered together: enough to share the work, few enough to bound the memory."""

_LEAVE = frozenset({"exit", "quit"})


def ask(inputs: Inputs, setup: Setup, decoding: GenerationConfig, *, as_json: bool) -> None:
    """Answer the questions, or ask for them."""
    questions = inputs.questions or _questions_from_stdin(inputs, as_json=as_json)
    learned_for = _only_question(questions, setup)
    documents = read_documents(inputs.names)
    warn_of_toy(setup, documents)
    with opened(setup) as engine:
        adapted = learn(engine, documents, setup, question=learned_for)
        console.status(summary(adapted))
        if as_json:
            answers = answer_all(engine, adapted, questions, decoding)
            console.write_json(
                {
                    "model": model_name(setup),
                    **document_json(inputs.names, adapted),
                    "answers": [
                        answer_json(*pair) for pair in zip(questions, answers, strict=True)
                    ],
                }
            )
        elif len(questions) == 1:
            _tell_cost(_stream(engine, adapted, questions[0], decoding))
        elif questions:
            _print_all(engine, adapted, questions, decoding)
        else:
            _converse(engine, adapted, decoding)


def answer_all(
    engine: TTTEngine,
    adapted: AdaptedDocument,
    questions: Sequence[str],
    decoding: GenerationConfig,
    *,
    on_batch: Callable[[int], None] = lambda done: None,
    batch: int = BATCH,
) -> list[Answer]:
    """Answer many questions, a batch at a time; `on_batch` hears how many are done."""
    answers: list[Answer] = []
    for start in range(0, len(questions), batch):
        part = questions[start : start + batch]
        answers += engine.generate_batch(adapted, part, config=decoding)
        on_batch(len(answers))
    return answers


def _only_question(questions: Sequence[str], setup: Setup) -> str | None:
    """Return the question to train for, where the recipe trains for one."""
    recipe = setup.adaptation
    if recipe is None or not recipe.needs_question:
        return None
    if len(questions) != 1:
        raise UsageProblem(
            f"--supervision {recipe.supervision} trains for one question; give exactly one"
        )
    return questions[0]


def _questions_from_stdin(inputs: Inputs, *, as_json: bool) -> tuple[str, ...]:
    """Read questions that are piped in; none if a person is there to be asked for them."""
    if STDIN in inputs.names:
        raise UsageProblem("no question; stdin is the document here, so give it as an argument")
    if sys.stdin.isatty():
        if as_json:
            raise UsageProblem("no question; with --json give it as an argument or on stdin")
        return ()
    questions = read_question_lines()
    if not questions:
        raise UsageProblem('no question; give it as the last argument: ttt ask FILE "QUESTION"')
    return questions


def _print_all(
    engine: TTTEngine,
    adapted: AdaptedDocument,
    questions: Sequence[str],
    decoding: GenerationConfig,
) -> None:
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        for question, answer in zip(part, answer_all(engine, adapted, part, decoding), strict=True):
            console.heading(question)
            console.write(f"{answer.text.rstrip()}\n\n")


def _converse(engine: TTTEngine, adapted: AdaptedDocument, decoding: GenerationConfig) -> None:
    """Prompt for question after question. Ctrl-C stops an answer; at the prompt it leaves."""
    with suppress(ImportError):  # Not on Windows.
        import readline  # noqa: F401 - gives input() line editing and history
    console.status("ask about it; Ctrl-C stops an answer, Ctrl-D leaves")
    while (question := _next_question()) is not None:
        if question:
            _answer_one(engine, adapted, question, decoding)


def _next_question() -> str | None:
    try:
        question = input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        console.write("\n")
        return None
    return None if question in _LEAVE else question


def _answer_one(
    engine: TTTEngine, adapted: AdaptedDocument, question: str, decoding: GenerationConfig
) -> None:
    """Answer within the conversation: what goes wrong with one question does not end it."""
    try:
        _tell_cost(_stream(engine, adapted, question, decoding))
    except KeyboardInterrupt:
        console.note("stopped this answer")
    except TTTError as error:
        console.error(describe(error))


def _stream(
    engine: TTTEngine, adapted: AdaptedDocument, question: str, decoding: GenerationConfig
) -> Answer:
    """Print an answer as it comes; the line is ended even if the answer is stopped."""
    stream = engine.stream(adapted, question, config=decoding)
    begun = False
    try:
        for piece in stream:
            begun = True
            console.write(piece)
    except KeyboardInterrupt:
        if begun:
            console.write("\n")
        raise
    finally:
        stream.close()
    console.write("\n")
    return stream.answer


def _tell_cost(answer: Answer) -> None:
    if not answer.text.strip():
        console.note("note: the model's answer is empty")
    if answer.finish_reason == "length":
        tokens = answer.usage.completion_tokens
        console.note(f"note: cut off after {tokens:,} tokens; --max-new-tokens allows more")
    console.status(figures(answer))
