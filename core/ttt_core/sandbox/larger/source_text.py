"""Text that people wrote: passages of the standard library's sources, docstrings and all.

What the machine's Python brings is all there is without a download. Another Python has other
modules, so another machine trains another model.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from ttt_core.sandbox.tasks.code_modules import standard_library


@lru_cache(maxsize=2)
def modules(most_chars: int) -> tuple[tuple[str, ...], ...]:
    """Return the lines of modules, in an order that mixes packages, up to `most_chars` in all.

    Non-ASCII modules are left out, and so are those of fewer than 40 lines.
    """
    library, room = standard_library(), most_chars
    paths = list(library.paths())
    Random(0).shuffle(paths)
    found: list[tuple[str, ...]] = []
    for path in paths:
        try:
            source = (library.root / path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            continue
        lines = tuple(source.splitlines())
        if len(lines) >= 40 and len(source) <= room:
            room -= len(source)
            found.append(lines)
    return tuple(found)


def passage(rng: Random, lines: int, *, most_chars: int) -> list[str]:
    """Draw at most `lines` consecutive lines of a module, all modules' lines equally often."""
    known = modules(most_chars)
    module = rng.choices(known, weights=_sizes(most_chars))[0]
    start = rng.randrange(max(1, len(module) - lines))
    return list(module[start : start + lines])


@lru_cache(maxsize=2)
def _sizes(most_chars: int) -> tuple[int, ...]:
    return tuple(len(lines) for lines in modules(most_chars))
