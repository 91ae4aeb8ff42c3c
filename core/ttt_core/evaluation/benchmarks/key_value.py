"""Key-value retrieval of "Lost in the Middle": find a UUID's value in a JSON object.

Liu et al., arXiv 2307.03172, https://github.com/nelson-liu/lost-in-the-middle. Prompt
(`src/lost_in_the_middle/prompting.py` and its tests) and scoring (`evaluate_kv_responses.py`) are
checked against that repository. Its files come compressed; unpack them with gunzip.
"""

from __future__ import annotations

from collections.abc import Iterator

from ttt_core.errors import ConfigError
from ttt_core.evaluation.benchmarks.base import Benchmark, Record, fifth, kind, records
from ttt_core.evaluation.data import Source
from ttt_core.examples import Example, Question

_DOCUMENT = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\n"
    "JSON data:\n{%s}"
)


class KeyValueRetrieval(Benchmark):
    """Accuracy by the key's place, and by how many keys there are.

    Document and question, a blank line between them, are the official prompt. Chance is 0: nobody
    guesses a UUID.

    Args:
        source: File with the fields `ordered_kv_records`, `key`, `value`.
        gold_index: Move the asked key to this place, counted from 0, as the paper does to show
            the effect of the place; None: where it stands in the file.
    """

    name = "key-value"
    description = "Lost in the Middle: find the value of a key in a long JSON object of UUIDs"
    max_new_tokens = 100

    def __init__(self, source: Source, *, gold_index: int | None = None) -> None:
        if gold_index is not None and gold_index < 0:
            raise ConfigError(f"gold_index must not be negative, got {gold_index}")
        super().__init__(source)
        self.gold_index = gold_index

    def all_examples(self) -> Iterator[Example]:
        """Yield an example a row; see `Benchmark`."""
        for number, row in enumerate(records(self.source), 1):
            yield _example(row, str(number), self.gold_index)

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer contains the value, in either case."""
        return float(any(value.lower() in answer.lower() for value in question.references))


def _example(row: Record, number: str, gold_index: int | None) -> Example:
    pairs, asked = _pairs(row), (row.text("key"), row.text("value"))
    if pairs.count(asked) != 1 or len({key for key, _ in pairs}) < len(pairs):
        raise row.wrong("ordered_kv_records", "key and value once, and each key once", "otherwise")
    if gold_index is not None:
        pairs.remove(asked)
        pairs.insert(gold_index, asked)
    lines = [f'"{key}": "{value}"' for key, value in pairs]
    place = pairs.index(asked)
    question = Question(
        id="1",
        text=f'Key: "{asked[0]}"\nCorresponding value:',
        references=(asked[1],),
        needles=(lines[place],),
        groups={"position": fifth(place, len(pairs)), "keys": str(len(pairs))},
    )
    document = _DOCUMENT % ",\n ".join(lines)
    return Example(id=number, document=document, questions=(question,))


def _pairs(row: Record) -> list[tuple[str, str]]:
    field = "ordered_kv_records"
    pairs = row.fields.get(field)
    if not isinstance(pairs, list):
        raise row.wrong(field, "a list of pairs", kind(pairs))
    found = []
    for pair in pairs:
        match pair:
            case [str(key), str(value)]:
                found.append((key, value))
            case _:
                raise row.wrong(field, "pairs of texts", f"{kind(pair)} in it")
    return found
