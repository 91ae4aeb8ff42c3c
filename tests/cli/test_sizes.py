"""Sizes and ages as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.cli.failures import UsageProblem
from ttt_core.cli.sizes import format_age, format_size, parse_age, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("120000", 120_000), ("12B", 12), ("1kB", 1000), ("1KiB", 1024),
        ("1.5 GiB", 3 << 29), ("2g", 2 * 10**9), ("2GB", 2 * 10**9), ("1TiB", 1 << 40),
        ("1Mi", 1 << 20),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, option="--x") == size


def test_no_size_names_its_option() -> None:
    with pytest.raises(UsageProblem, match="--x"):
        parse_size("x", option="--x")
    with pytest.raises(UsageProblem, match="give a unit"):
        parse_size("12", option="--x")


@given(st.integers(0, 1 << 60))
def test_written_sizes_are_read_as_about_the_same(size: int) -> None:
    written = format_size(size).replace(",", "").replace("bytes", "B")
    assert abs(parse_size(written, option="") - size) <= size / 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0), ("90 s", 90), ("5min", 300), ("12h", 43_200), ("1.5H", 5400), ("30d", 2_592_000),
        ("2w", 1_209_600), ("1y", 31_536_000),
    ],
)  # fmt: skip
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text, option="--x") == seconds


@pytest.mark.parametrize("text", ["", "30", "-1d", "d", "1 month", "5m", "1d12h", "nan d", "1e3s"])
def test_what_is_no_age_names_its_option(text: str) -> None:
    """5m could be minutes or months: what is removed by mistake is gone."""
    with pytest.raises(UsageProblem, match="--x is an age such as 30d"):
        parse_age(text, option="--x")


@given(st.floats(60, 1e10))
def test_written_ages_are_read_as_about_the_same(seconds: float) -> None:
    assert seconds / 2 <= parse_age(format_age(seconds), option="") <= seconds


@pytest.mark.parametrize("seconds", [-1e9, -1, 0, 59.9])
def test_what_is_new_or_from_the_future_has_no_age(seconds: float) -> None:
    assert format_age(seconds) == "< 1 min"
