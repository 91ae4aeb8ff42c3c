"""Plays in which several processes adapt to documents at once; run as a script.

A parent that has everything imported forks the actors. It reads from its input which play to give
on which store, and answers `null`, or what went wrong, as JSON.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.engines import DOCUMENTS, make_engine, warm_up
from tests.plays import serve
from ttt_core import Progress, RuntimeConfig
from ttt_core.store import AdapterStore

PATIENCE = 120.0
"""Seconds after which an actor that says nothing must hang."""

TEXT = DOCUMENTS[0]


class Hook:
    """What an actor has in hand: it tells, and waits for its cue."""

    def __init__(self, tell: int, cue: int) -> None:
        self._tell, self._cue = tell, cue

    def tell(self, *words: object) -> None:
        os.write(self._tell, (" ".join(map(str, words)) + "\n").encode())

    def wait_for_cue(self) -> None:
        os.read(self._cue, 1)


class Actor:
    """A forked process that plays a role."""

    def __init__(self, role: Callable[[Hook], None]) -> None:
        told, tell = os.pipe()
        cue, give_cue = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(told), os.close(give_cue)
                role(Hook(tell, cue))
                status = 0
            except BaseException:
                os.write(tell, ("FAILED " + repr(traceback.format_exc()) + "\n").encode())
            finally:
                os._exit(status)
        os.close(tell), os.close(cue)
        self._told, self._give_cue, self._said = told, give_cue, b""

    def says(self) -> str:
        """Wait for the next thing that it tells; empty: it ended."""
        while b"\n" not in self._said:
            assert select.select([self._told], [], [], PATIENCE)[0], "an actor hangs"
            said = os.read(self._told, 4096)
            if not said:
                return ""
            self._said += said
        line, _, self._said = self._said.partition(b"\n")
        assert not line.startswith(b"FAILED"), line.decode()
        return line.decode()

    def until(self, line: str) -> None:
        """Wait until it tells just this."""
        while (said := self.says()) != line:
            assert said, f"it ended without saying {line!r}"

    def last(self) -> str:
        """Wait for its end; return the last thing that it told."""
        last = ""
        while said := self.says():
            last = said
        return last

    def cue(self) -> None:
        os.write(self._give_cue, b".")

    def kill(self) -> None:
        """Kill it; when this returns, the kernel has closed all that it had open."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        self.kill()
        os.waitpid(self.pid, 0)
        os.close(self._told), os.close(self._give_cue)


@contextmanager
def stage(*roles: Callable[[Hook], None]) -> Iterator[list[Actor]]:
    """Actors for the length of the block."""
    actors: list[Actor] = []
    try:
        for role in roles:
            actors.append(Actor(role))
        yield actors
    finally:
        for actor in actors:
            actor.close()


# ---------------------------------------------------------------- roles


def adapts(path: Path, *, timeout: float = 3600.0, holds: str = "") -> Callable[[Hook], None]:
    """Adapt on cue, tell each stage once, and wait for another cue when stage `holds` begins."""

    def role(hook: Hook) -> None:
        engine = make_engine(path, runtime=RuntimeConfig(adaptation_timeout=timeout))
        logger = logging.getLogger("ttt_core")
        logger.addHandler(_Telling(hook))
        logger.setLevel(logging.WARNING)
        told = set()

        def on_progress(progress: Progress) -> None:
            if progress.stage not in told:
                told.add(progress.stage)
                hook.tell(progress.stage)
                if progress.stage == holds:
                    hook.wait_for_cue()

        hook.tell("ready")
        hook.wait_for_cue()
        adapted = engine.adapt(TEXT, on_progress=on_progress)
        assert adapted.adapter is not None
        hook.tell("source", adapted.source)

    return role


def cancels(path: Path) -> Callable[[Hook], None]:
    """Adapt, but give up as soon as somebody else has to be waited for."""

    def role(hook: Hook) -> None:
        def on_progress(progress: Progress) -> None:
            if progress.stage == "wait":
                raise KeyboardInterrupt

        engine = make_engine(path)
        hook.wait_for_cue()
        try:
            engine.adapt(TEXT, on_progress=on_progress)
        except KeyboardInterrupt:
            hook.tell("cancelled")

    return role


def holds(path: Path) -> Callable[[Hook], None]:
    """Adapt, and keep the adapter in memory until the cue; then use it once more."""

    def role(hook: Hook) -> None:
        engine = make_engine(path)
        engine.adapt(TEXT)
        hook.tell("held")
        hook.wait_for_cue()
        hook.tell(engine.adapt(TEXT).source)
        hook.wait_for_cue()

    return role


class _Telling(logging.Handler):
    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self._hook = hook

    def emit(self, record: logging.LogRecord) -> None:
        self._hook.tell("warning", record.getMessage())


# ---------------------------------------------------------------- plays


def at_once(path: Path) -> None:
    """Six ask at once: one trains, the others have it from the store."""
    with stage(*[adapts(path)] * 6) as actors:
        for actor in actors:
            actor.until("ready")
        for actor in actors:
            actor.cue()
        sources = sorted(actor.last() for actor in actors)
    assert sources == ["source store"] * 5 + ["source trained"], sources
    check_left_over(path)


def killed(path: Path) -> None:
    """The one that trains is killed; one of those that wait takes over, the other has it then."""
    with stage(adapts(path, holds="train"), adapts(path), adapts(path)) as (first, *others):
        first.cue()
        first.until("train")
        for other in others:
            other.cue()
        for other in others:
            other.until("wait")
        first.kill()
        sources = sorted(other.last() for other in others)
    assert sources == ["source store", "source trained"], sources
    check_left_over(path)


def too_slow(path: Path) -> None:
    """Who has waited for long enough trains, too, and says why; nobody's work is refused."""
    with stage(adapts(path, holds="train"), adapts(path, timeout=0.5)) as (slow, other):
        slow.cue()
        slow.until("train")
        other.cue()
        said = []
        while line := other.says():
            said.append(line)
        assert said[-1] == "source trained", said
        [warning] = [line for line in said if line.startswith("warning")]
        assert "somebody else has been adapting to the same document" in warning
        slow.cue()
        assert slow.last() == "source trained"
    assert len(AdapterStore(path).entries()) == 1
    check_left_over(path)


def cancelled(path: Path) -> None:
    """Who waits can leave, and the one who works does not notice."""
    with stage(adapts(path, holds="train"), cancels(path)) as (first, other):
        first.cue()
        first.until("train")
        other.cue()
        assert other.last() == "cancelled"
        first.cue()
        assert first.last() == "source trained"
    check_left_over(path)


def pinned(path: Path) -> None:
    """What a process holds in memory is not evicted, until that process is killed."""
    store = AdapterStore(path)
    with stage(holds(path)) as (holder,):
        holder.until("held")
        pruned = store.prune(max_bytes=0)
        assert not pruned.removed
        assert len(pruned.kept_in_use) == 1
        holder.cue()
        assert holder.says() == "memory"
        holder.kill()
        assert len(store.prune(max_bytes=0).removed) == 1
    assert store.entries() == []


def check_left_over(path: Path) -> None:
    left = [str(file) for file in path.rglob("*") if file.suffix in (".lock", ".tmp", ".damaged")]
    assert not left, left


if __name__ == "__main__":
    warm_up()
    serve(at_once, killed, too_slow, cancelled, pinned)
