"""One cell: an arm's answers to an example's questions, scored, as they are written down."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ttt_core.errors import (
    AdaptationError,
    AnswerTimeoutError,
    ConfigError,
    DocumentError,
    MissingLibraryError,
    OutOfMemoryError,
    PromptTooLongError,
)
from ttt_core.evaluation.records import (
    Cell,
    CellKey,
    CellTiming,
    Failure,
    QuestionResult,
    RunRecord,
)

if TYPE_CHECKING:
    from ttt_core.engine import TTTEngine
    from ttt_core.evaluation.arms import Arm
    from ttt_core.evaluation.arms.base import ArmResult
    from ttt_core.evaluation.bench import Bench
    from ttt_core.examples import Example, Question, Task

FAILURES = (
    AdaptationError,
    AnswerTimeoutError,
    ConfigError,
    DocumentError,
    OutOfMemoryError,
    PromptTooLongError,
)
"""What is the cell's own fault. A full disk, or a model that cannot be loaded, ends the run."""


def evaluate(bench: Bench, example: Example, arm: Arm, key: CellKey) -> tuple[Cell, CellTiming]:
    """Let an arm answer an example's questions, and score them; failing is a result, too.

    Raises:
        ConfigError: The task's score or chance is none.
        MissingLibraryError: The arm or the task needs an extra that is not installed.
    """
    try:
        result = arm.run(bench, example)
    except MissingLibraryError:  # Installed tomorrow, it is no failure of the arm any more.
        raise
    except (*FAILURES, MemoryError) as error:
        message = " ".join(str(error).split())
        failure = Failure(kind=type(error).__name__, message=message)
        return Cell(key=key, source=example.source, failure=failure), _timing(bench, key)
    return _cell(bench.task, example, key, result), _timing(bench, key, example, result)


def _cell(task: Task, example: Example, key: CellKey, result: ArmResult) -> Cell:
    found = []
    for question, one in zip(example.questions, result.replies, strict=True):
        score = task.score(one.text, question) if one.score is None else one.score
        _check(task, question, score, question.chance)
        found.append(
            QuestionResult(
                id=question.id,
                text=one.text,
                score=score,
                chance=question.chance,
                flops=one.flops,
                tokens=one.tokens,
                generated_tokens=one.generated_tokens,
                finish_reason=one.finish_reason,
                groups=dict(question.groups),
                details=one.details,
            )
        )
    return Cell(
        key=key,
        source=example.source,
        n_tokens=result.n_tokens,
        document_flops=result.document_flops,
        details=result.details,
        questions=tuple(found),
    )


def _check(task: Task, question: Question, *values: float) -> None:
    if not all(0 <= value <= 1 for value in values):  # So is what is not a number.
        raise ConfigError(
            f"task {task.name!r}, question {question.id!r}: expected a score and a chance from 0 "
            f"to 1, found {' and '.join(map(str, values))}; mend the task"
        )


def _timing(
    bench: Bench, key: CellKey, example: Example | None = None, result: ArmResult | None = None
) -> CellTiming:
    seconds: dict[str, float] = {}
    if example is not None and result is not None:
        shared = result.seconds / len(result.replies)
        seconds = {
            question.id: one.seconds + shared
            for question, one in zip(example.questions, result.replies, strict=True)
        }
    return CellTiming(
        cell=key.digest,
        document_seconds=result.document_seconds if result else {},
        question_seconds=seconds,
        when=now(),
        threads=bench.threads,
        device=bench.device,
    )


def run_record(engine: TTTEngine, command: str) -> RunRecord:
    """Say who begins to work: the command, versions, and on what."""
    import platform
    from importlib.metadata import version

    import torch

    from ttt_core import __version__

    device = engine.loaded.runtime.model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return RunRecord(
        command=command,
        when=now(),
        versions={
            "context-ttt": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": version("transformers"),
        },
        device=name,
        platform=f"{platform.system()} {platform.machine()}",
    )


def now() -> str:
    """The time, UTC, to the second, in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
