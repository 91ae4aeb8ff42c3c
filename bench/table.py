"""How are results shown? A Markdown table on the screen, and everything in a JSON file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.options import Setting, environment

NOTHING = "—"

Result = dict[str, Any]
Columns = Mapping[str, Callable[[Result], str]]


def print_table(rows: Sequence[Result], columns: Columns) -> None:
    """Print a Markdown table; a void row shows the reason in place of its figures."""
    print("\n| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(show(row) for show in columns.values()) + " |")
    print(flush=True)


def finish(program: str, setting: Setting, options: argparse.Namespace, **results: Any) -> None:
    """Write configuration, environment and results as JSON; fail if any row is void.

    Raises:
        SystemExit: A row is void.
    """
    path: Path = options.output
    content = {
        "program": program,
        "options": {key: value for key, value in vars(options).items() if key != "output"},
        "environment": environment(setting),
        **results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")
    void = sum(bool(row.get("void")) for row in results.get("rows", ()))
    if void:
        raise SystemExit(f"{void} rows are void: peers did not compute the same")


def number(value: float | None, digits: int = 3) -> str:
    """Show a number with so many significant digits."""
    if value is None:
        return NOTHING
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def ratio(value: float | None) -> str:
    """Show a ratio."""
    return NOTHING if value is None else f"{number(value, 2 if value < 100 else 3)}x"


def percent(share: float | None) -> str:
    """Show a share; never rounded up to all."""
    return NOTHING if share is None else f"{int(100 * share)} %"


def mebibytes(value: int | None) -> str:
    """Show bytes in MiB."""
    return NOTHING if value is None else f"{max(value, 0) / 2**20:,.1f}"


def divided(above: float | None, below: float | None) -> float | None:
    """Divide, if both are known."""
    return above / below if above is not None and below else None
