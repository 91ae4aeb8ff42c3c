"""Reports stand on one line: whole, one after another, gone when told to, and on terminals only."""

from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.integration.progress_line import ProgressLine, in_words
from ttt_core.progress import Progress

REPORTS = st.builds(
    Progress,
    stage=st.sampled_from(["load", "prefill", "tune", "train", "probe", "documents", "wait"]),
    done=st.integers(0, 9999),
    total=st.integers(0, 99_999),
    document=st.just(3),
    documents=st.sampled_from([None, 5, 1000]),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(written: str) -> str:
    """What a terminal shows of one line: each return begins to write over what is there."""
    shown = ""
    for part in written.split("\r"):
        shown = part + shown[len(part) :]
    return shown


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (Progress("load", 0, 1), "loading the model"),
        (Progress("prefill", 409, 1024), "reading 39%"),
        (Progress("prefill", 0, 0), "reading 0/0"),
        (Progress("train", 12, 48, loss=1.5), "training 12/48"),
        (Progress("wait", 3, 0), "waiting for another process, 3 s"),
        (Progress("prefill", 1, 2, document=3, documents=5), "document 3 of 5: reading 50%"),
    ],
)
def test_reports_in_words(report: Progress, said: str) -> None:
    assert in_words(report) == said


@given(st.lists(REPORTS, min_size=1))
def test_the_line_is_the_last_report_until_it_is_cleared(reports: list[Progress]) -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for report in reports:
        line.show(report)
        assert screen(stream.getvalue()).rstrip() == in_words(report)
    line.clear()
    assert screen(stream.getvalue()).strip() == ""
    assert stream.getvalue().endswith("\r")
    assert "\n" not in stream.getvalue()


def test_what_is_clear_is_not_cleared_again() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.clear()
    assert stream.getvalue() == ""
    line.show(Progress("train", 1, 2))
    line.clear()
    before = stream.getvalue()
    line.clear()
    assert stream.getvalue() == before


def test_shows_itself_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    line, log, terminal = ProgressLine(), io.StringIO(), Terminal()
    for stream in (log, terminal, None):
        monkeypatch.setattr("sys.stderr", stream)
        line.show(Progress("train", 1, 2))
    assert log.getvalue() == ""
    assert terminal.getvalue() == "\rtraining 1/2"


def test_reports_of_several_threads_are_not_mixed() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)

    def work(stage: int) -> None:
        for done in range(200):
            line.show(Progress("train" if stage else "probe", done, 200))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    possible = {f"{word} {done}/200" for word in ("training", "judging") for done in range(200)}
    said = [part.rstrip() for part in stream.getvalue().split("\r")[1:]]
    assert len(said) == 400
    assert set(said) == possible
