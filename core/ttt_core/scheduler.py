"""Who decodes when: questions on one document, from whatever callers, share forward passes.

No thread runs in the background. A caller who wants text takes the wheel of its batch and runs
steps for everybody in it until it has what it wants; then one of those who still wait takes over.
A step is one turn on the model, so that the turns' queue alternates between documents, and who
comes late joins the next step. What a row becomes is `ttt_core.generate`'s affair.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch

if TYPE_CHECKING:
    from ttt_core.attention.base import Tails
    from ttt_core.generate import Request, Row

_CHUNK = 512  # Question tokens a step: a long question must not hold up the answers beside it.
_AHEAD = 8  # Tokens a stream may lead its reader: enough for a late one, little for a paused one.


class Scheduler:
    """The batches of one model: one for each document and adapter that are being asked about.

    Args:
        max_batch_size: Rows of a batch that are computed together; the rest wait in order.
    """

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size
        self._guard = threading.Lock()
        # By object, not by content: nothing foreign can meet. A batch holds both objects, so that
        # their ids stay theirs, and lives as long as somebody decodes in it.
        self._batches: WeakValueDictionary[tuple[int, int], _Batch] = WeakValueDictionary()

    def run(self, rows: Sequence[Row]) -> None:
        """Decode rows of one document to their ends."""
        for _ in self._decode(_Seat(rows, whole=True)):
            pass

    def stream(self, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
        """Decode rows of one document; yield (row index, new text). Closing it cancels them."""
        return self._decode(_Seat(rows, whole=False))

    def _decode(self, seat: _Seat) -> Iterator[tuple[int, str]]:
        request = seat.places[0].row.request
        assert request is not None, "a row is decoded once"
        batch = self._batch(request)
        del request
        try:
            batch.join(seat)
            while not seat.done:
                yield from batch.advance(seat)
        finally:
            batch.leave(seat)
            # Rows may be kept for their answers, and a seat and its places refer to each other:
            # neither may keep a document's keys and values in memory.
            for place in seat.places:
                place.row.let_go()
            seat.places = []

    def _batch(self, request: Request) -> _Batch:
        key = id(request.prefix), id(request.adapter)
        with self._guard:
            batch = self._batches.get(key)
            if batch is None:
                batch = self._batches[key] = _Batch(request, self._max_batch_size)
            return batch


class _Place:
    """A row's place in a batch."""

    def __init__(self, row: Row, seat: _Seat) -> None:
        self.row = row
        self.seat = seat
        self.segment = -1  # Name of its tail, while it has one.
        self.computed = 0  # Tokens in that tail.
        self._said = 0  # Characters the caller has; `_seen` are the tokens.
        self._seen = 0

    @property
    def over(self) -> bool:
        seat = self.seat
        return self.row.finish_reason is not None or seat.left or seat.error is not None

    @property
    def missing(self) -> int:
        """Tokens to compute until the next one can be chosen."""
        return len(self.row) - self.computed

    @property
    def runnable(self) -> bool:
        wanted = self.seat.waiting or len(self.row.ids) - self._seen < _AHEAD
        return wanted and not self.over

    @property
    def has_text(self) -> bool:
        return len(self.row.text) > self._said

    def take(self) -> str:
        """The text the caller does not have yet."""
        text = self.row.text[self._said :]
        self._said, self._seen = self._said + len(text), len(self.row.ids)
        return text


class _Seat:
    """A caller and its rows. `whole`: it wants to hear of them when all have ended."""

    def __init__(self, rows: Sequence[Row], *, whole: bool) -> None:
        self.places = [_Place(row, self) for row in rows]
        self.waiting = False
        self.left = False
        self.error: Exception | None = None
        self.wake = threading.Event()
        self._whole = whole

    @property
    def ended(self) -> bool:
        return all(place.row.finish_reason is not None for place in self.places)

    @property
    def done(self) -> bool:
        return self.ended and not any(place.has_text for place in self.places)

    @property
    def served(self) -> bool:
        if self.error is not None or self.ended:
            return True
        return not self._whole and any(place.has_text for place in self.places)

    def take(self) -> list[tuple[int, str]]:
        """What is new for the caller: text, or the error that ended its rows."""
        if self.error is not None:
            error, self.error = self.error, None  # Its traceback holds us: break the circle.
            raise error
        texts = [(index, place.take()) for index, place in enumerate(self.places)]
        return [(index, text) for index, text in texts if text]


_Part = list[tuple[_Place, list[int]]]
"""What takes part in a step: places, and the tokens to compute for each."""


class _Batch:
    """The rows of one document and adapter, and the callers who take turns at driving them.

    All of it is touched under the lock alone, except that a driver computes without it: nobody
    else goes near the tails then.
    """

    def __init__(self, request: Request, max_batch_size: int) -> None:
        self._request = request
        self._size = max_batch_size
        self._lock = threading.Lock()
        self._driver: _Seat | None = None
        self._seats: list[_Seat] = []
        self._queue: deque[_Place] = deque()  # Rows without a tail, in order of arrival.
        self._running: list[_Place] = []  # Rows with one; likewise.
        self._tails = self._no_tails()
        self._next_segment = 0
        self._reading = False

    def join(self, seat: _Seat) -> None:
        """Queue a caller's rows."""
        with self._lock:
            for place in seat.places:
                place.row.start()
            self._seats.append(seat)
            self._queue.extend(seat.places)

    def leave(self, seat: _Seat) -> None:
        """Cancel what has not ended of a caller's rows.

        The garbage collector may call this anywhere, in a thread that holds the lock included. So
        it waits for nothing: if it comes at a bad time, the next step or leave-taking tidies up.
        """
        seat.left = True
        if self._lock.acquire(blocking=False):
            try:
                if self._driver is None:
                    self._tidy()
            finally:
                self._lock.release()

    def advance(self, seat: _Seat) -> list[tuple[int, str]]:
        """Wait, or drive, until there is something new for a caller; return it."""
        try:
            while True:
                with self._lock:
                    seat.waiting = True
                    if seat.served:
                        return seat.take()
                    if self._driver is None:
                        self._driver = seat
                    seat.wake.clear()
                if self._driver is seat:
                    self._step()
                else:
                    seat.wake.wait()
        finally:
            try:
                self._hand_over(seat)
            except BaseException:  # Interrupted on the threshold: the others must not be stuck.
                self._hand_over(seat)
                raise

    def _hand_over(self, seat: _Seat) -> None:
        """Whoever stops waiting, for whatever reason, sees to it that somebody drives."""
        with self._lock:
            seat.waiting = False
            if self._driver is seat:
                self._driver = None
            if self._driver is None:
                self._tidy()
                for other in self._seats:
                    if other.waiting:
                        other.wake.set()
                        break

    def _step(self) -> None:
        """One forward pass for everybody who takes part in it."""
        part: _Part = []
        try:
            with self._lock:
                self._tidy()
                self._admit()
                part = self._choose()
            # A driver's inference mode would mark what others go on with.
            with torch.inference_mode(False):
                logits = self._forward(part)
            with self._lock:
                self._commit(part, logits)
        except Exception as error:
            with self._lock:
                self._fail([place for place, _ in part], error)
        except BaseException:
            # KeyboardInterrupt and the like are the driver's alone. But how far it got nobody can
            # tell, so that the others' rows are computed again from the tokens they have.
            with self._lock:
                self._restart()
            raise

    def _tidy(self) -> None:
        """Let go of rows that have ended and of callers who have left."""
        for place in [place for place in self._running if place.over]:
            self._unseat(place)
        if any(seat.left for seat in self._seats):
            self._seats = [seat for seat in self._seats if not seat.left]
            self._queue = deque(place for place in self._queue if not place.over)

    def _admit(self) -> None:
        for place in tuple(self._queue):
            if place.runnable:
                if not self._room():
                    return
                self._queue.remove(place)
                place.segment, self._next_segment = self._next_segment, self._next_segment + 1
                self._running.append(place)

    def _room(self) -> bool:
        """Whether one more row may run; those whose readers pause make room for those who wait."""
        if len(self._running) < self._size:
            return True
        paused = next((place for place in self._running if not place.runnable), None)
        if paused is None:
            return False
        self._unseat(paused)
        self._queue.append(paused)
        return True

    def _unseat(self, place: _Place) -> None:
        self._running.remove(place)
        self._tails.drop(place.segment)
        place.computed = 0

    def _choose(self) -> _Part:
        """The tokens of the next step: those of questions, then one of each answer, in turn."""
        runnable = [place for place in self._running if place.runnable]
        answers = [place for place in runnable if place.missing == 1]
        questions = [place for place in runnable if place.missing > 1]
        self._reading = bool(questions) and not (answers and self._reading)
        part: _Part = []
        budget = _CHUNK
        for place in questions if self._reading else answers:
            ids = place.row.tokens(place.computed)
            if self._reading:
                ids = ids[:budget]
                budget -= len(ids)
            if ids:
                part.append((place, ids))
        assert part, "a driver's rows are runnable"
        return part

    def _forward(self, part: _Part) -> torch.Tensor:
        """Compute tokens; return the logits behind each row that has all of its own by now."""
        ids: list[int] = []
        positions: list[int] = []
        segments: list[int] = []
        at: list[int] = []
        for place, new in part:
            begin = len(self._request.prefix) + place.computed
            ids += new
            positions += range(begin, begin + len(new))
            segments += [place.segment] * len(new)
            if len(new) == place.missing:
                at.append(len(ids) - 1)
        with self._request.runtime.turn(self._request.adapter) as model, torch.no_grad():
            return self._tails.forward(
                model,
                input_ids=torch.tensor(ids),
                position_ids=torch.tensor(positions),
                segment_ids=torch.tensor(segments),
                logits_at=torch.tensor(at or [0]),  # Some models want one.
            )

    def _commit(self, part: _Part, logits: torch.Tensor) -> None:
        rows = iter(logits)
        attention = self._tails.name
        for place, new in part:
            place.computed += len(new)
            place.row.count(len(new), attention=attention)
            if place.missing == 0:
                self._push(place, next(rows))
        self._wake()

    def _push(self, place: _Place, logits: torch.Tensor) -> None:
        if place.over:  # Cancelled meanwhile.
            return
        try:
            place.row.push(logits)
        except Exception as error:  # Logits that are not numbers, say: this row's affair.
            self._fail([place], error)

    def _fail(self, places: Sequence[_Place], error: Exception) -> None:
        """Give the error to every caller who had a row in it."""
        seats = dict.fromkeys(place.seat for place in places) or [self._driver]
        for seat in seats:
            if seat is not None:
                seat.error = error if seat is self._driver else _copy(error)
        self._wake()

    def _restart(self) -> None:
        """Begin again with what is certain: the callers, and the tokens of their rows."""
        self._tails = self._no_tails()
        self._running = []
        places = (place for seat in self._seats for place in seat.places)
        self._queue = deque(place for place in places if not place.over)
        for place in self._queue:
            place.computed = 0
            place.row.restore()

    def _wake(self) -> None:
        for seat in self._seats:
            if seat.waiting and seat.served:
                seat.wake.set()

    def _no_tails(self) -> Tails:
        return self._request.runtime.attention.tails(self._request.prefix)


def _copy(error: Exception) -> Exception:
    """The same error for another caller: one object raised in two threads mixes tracebacks."""
    try:
        twin = copy.copy(error)
    except Exception:  # Its class cannot be copied.
        return error
    twin.__cause__ = error
    return twin
