"""Single flight: one works, the others wait, but not for ever."""

from __future__ import annotations

import threading

from ttt_core.flights import SingleFlight


def test_who_waited_for_too_long_is_told_and_takes_nothing_away() -> None:
    flight = SingleFlight()
    entered, leave = threading.Event(), threading.Event()
    held_by_first = []

    def work() -> None:
        with flight("key") as held:
            held_by_first.append(held)
            entered.set()
            leave.wait(60)

    first = threading.Thread(target=work)
    first.start()
    assert entered.wait(60)
    with flight("key", timeout=0.3) as held:
        assert not held
    with flight("other", timeout=0.0) as held:
        assert held
    with flight("key", timeout=0.0) as held:
        assert not held, "the one that gave up must not have let the lock go"
    leave.set()
    first.join(60)
    assert held_by_first == [True]
    with flight("key", timeout=0.0) as held:
        assert held
    assert not flight._flights
