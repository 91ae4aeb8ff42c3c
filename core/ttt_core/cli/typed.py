"""What was typed after `ttt`, for commands that record how they were called."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

_KEY = "ttt_core.cli.typed"


class TypedGroup(TyperGroup):
    """Remembers its arguments. `sys.argv` is another program's when that calls our commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_KEY] = tuple(args)  # Parsing empties the list.
        return super().parse_args(ctx, args)


def typed(context: typer.Context) -> tuple[str, ...]:
    """Return the arguments of this call of `ttt`, as they were typed."""
    arguments: tuple[str, ...] = context.meta[_KEY]
    return arguments
