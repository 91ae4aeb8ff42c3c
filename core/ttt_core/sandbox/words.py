"""The words of the sandbox: what registries are made of, read from `words.txt`.

Knows no tokenizer and no model, so that the documents can be generated without torch.
"""

from functools import cache
from importlib.resources import files


@cache
def _sections() -> dict[str, tuple[str, ...]]:
    """Read `words.txt`: a `[section]` line, then its words, separated by white space."""
    sections: dict[str, tuple[str, ...]] = {}
    name = ""
    text = files(__package__).joinpath("words.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            sections[name] = ()
        else:
            sections[name] += tuple(line.split())
    return sections


def adjectives() -> tuple[str, ...]:
    """Return the first words of the keys."""
    return _sections()["adjectives"]


def nouns() -> tuple[str, ...]:
    """Return the second words of the keys."""
    return _sections()["nouns"]


def places() -> tuple[str, ...]:
    """Return the values: names of cities, one word each."""
    return _sections()["places"]


def common() -> tuple[str, ...]:
    """Return frequent English words, so that questions and instructions take few tokens."""
    return _sections()["common"]
