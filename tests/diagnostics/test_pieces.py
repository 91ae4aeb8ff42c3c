"""How documents are cut: around the needle for dilution, into sections for the strip."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.diagnostics.dilution import MOST_CUTS, SHORTEST, cuts
from ttt_core.diagnostics.strips import MOST_SECTIONS, make_strip
from ttt_core.supervision import Passage, TokenizedDocument

FEW = settings(max_examples=60)


def lines(count: int, length: int, *, start: int = 3) -> TokenizedDocument:
    """A document of lines of `length` tokens behind `start` tokens of the template."""
    end = start + count * length
    passages = tuple(Passage(i, i + length) for i in range(start, end, length))
    return TokenizedDocument(tuple(range(end)), start, end, passages, ())


def test_cuts_double_up_to_the_whole_around_the_needle() -> None:
    """Lines of 4 tokens, the needle is [803, 807): 200 tokens in, of 1,600; halves are 800 ... 100.

    The piece of 100 is centred: from 805 - 50 to 855, shrunk to whole lines: 755 and 855 are line
    ends (755 = 3 + 188 * 4). 50 would be less than SHORTEST.
    """
    document = lines(400, 4)
    assert [tuple(cut) for cut in cuts(document, [Passage(803, 807)])] == [
        (755, 855),
        (707, 903),
        (607, 1003),
        (407, 1203),
    ]


@FEW
@given(st.integers(1, 300), st.integers(3, 9), st.data())
def test_cuts_hold_the_needle_grow_and_end_where_lines_do(
    count: int, length: int, data: st.DataObject
) -> None:
    document = lines(count, length)
    needle = document.passages[data.draw(st.integers(0, count - 1))]
    found = list(cuts(document, [needle]))
    assert len(found) < MOST_CUTS
    for cut in found:
        assert document.start <= cut.start <= needle.start < needle.end <= cut.end <= document.end
        assert {(cut.start - 3) % length, (cut.end - 3) % length} == {0}
        assert cut.end - cut.start >= SHORTEST - 2 * length
    sizes = [cut.end - cut.start for cut in found]
    assert sizes == sorted(set(sizes))
    assert not sizes or sizes[-1] < document.end - document.start


def test_needles_far_apart_leave_nothing_to_cut() -> None:
    document = lines(100, 4)
    assert list(cuts(document, [document.passages[0], document.passages[-1]])) == []


@FEW
@given(st.integers(1, 700), st.integers(3, 5))
def test_sections_cover_the_document_and_its_mass(count: int, length: int) -> None:
    document = lines(count, length)
    mass = [1 / document.end] * document.end
    strip = make_strip(document, mass, None, [], [])
    assert len(strip) <= MOST_SECTIONS
    assert (strip[0].start, strip[-1].end) == (document.start, document.end)
    assert all(a.end == b.start for a, b in pairwise(strip))
    assert sum(s.before for s in strip) == pytest.approx(count * length / document.end)


def test_a_strip_by_hand() -> None:
    """Two lines of 3 tokens behind 1 of the template; tokens 2 and 3 recur, the needle is 5."""
    document = lines(2, 3, start=1)
    mass, after = [0.4, 0.1, 0.1, 0.1, 0.2, 0.05, 0.05], [0.0, 0.2, 0.2, 0.1, 0.3, 0.1, 0.1]
    first, second = make_strip(document, mass, after, [2, 3], [5])
    assert (first.start, first.end, second.start, second.end) == (1, 4, 4, 7)
    assert (first.before, second.before) == pytest.approx((0.3, 0.3))
    assert (first.after, second.after) == pytest.approx((0.5, 0.5))
    assert (first.recurrent, second.recurrent) == pytest.approx((2 / 3, 0))
    assert (first.is_needle, second.is_needle) == (False, True)


def test_a_document_without_passages_is_one_section() -> None:
    document = TokenizedDocument((7, 8, 9), 1, 3, (), ())
    [section] = make_strip(document, [0.2, 0.3, 0.4], None, [], [])
    assert (section.start, section.end, section.before) == (1, 3, pytest.approx(0.7))
