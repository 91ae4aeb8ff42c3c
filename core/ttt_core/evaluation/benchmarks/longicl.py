"""LongICLBench: classify a text after many demonstrations of many labels.

Li et al., arXiv 2404.02060, https://github.com/TIGER-AI-Lab/LongICLBench. Wording and reading of
answers are checked against its `banking77_infer.py` and `goemotion_infer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ttt_core.config import unknown_name
from ttt_core.errors import ConfigError, DocumentError
from ttt_core.evaluation.data import HUB, Row, Source, read_rows
from ttt_core.examples import Example, Question, Split
from ttt_core.sandbox.tasks.many_shot import ManyShot, Wording

WORDINGS = {
    "banking77": Wording(
        introduction=(
            "Given a customer service query, please predict the intent of the query. The predict "
            "answer must come from the demonstration examples with the exact format. The examples "
            "are as follows: "
        ),
        text="service query",
        label="intent category",
    ),
    "goemotions": Wording(
        introduction=(
            "Given a comment, please predict the emotion category of this comment. The predict "
            "answer must come from the demonstration examples with the exact format. The examples "
            "are as follows: "
        ),
        text="comment",
        label="emotion category",
    ),
}
"""How the benchmark writes its data sets; another data set takes the wording of `ManyShot`."""


class LongICL:
    """Accuracy of a label by how many demonstrations of each label stand in the document.

    Rounds of demonstrations and the questions' disjointness are those of `ManyShot`, as is the
    one deviation from the benchmark: the order within a round is drawn. Questions come from the
    test split where there is one. Chance is that of a guess among the labels.

    Args:
        source: A folder with a train and a test file (`banking77_train.csv`), a single file (then
            some of its rows are asked, and the others shown), or `hub:owner/name`.
        dataset: Chooses the wording and, in a folder, the files whose names begin so; None: the
            one in `WORDINGS` whose name is in the source's, else the plain wording, and all files.
        text: The text's column.
        label: The label's column: names, not numbers, printed as they are (on the Hub, say,
            `hub:mteb/banking77` has them in `label_text`); None: `category` or `label_text`,
            whichever there is.
        questions: Questions on a document.

    Raises:
        ConfigError: `dataset` is not known.
        DocumentError: The data are not there, or not as they should be.
    """

    name = "longicl"
    description = "LongICLBench: classify a text after rounds of demonstrations of all labels"
    unit = "demonstrations per label"
    lengths = (1, 2, 3, 4, 5)
    max_new_tokens = 100

    def __init__(
        self,
        source: Source,
        *,
        dataset: str | None = None,
        text: str = "text",
        label: str | None = None,
        questions: int = 32,
    ) -> None:
        if dataset is not None and dataset not in WORDINGS:
            raise ConfigError(
                unknown_name("data set", dataset, WORDINGS, "data sets of LongICLBench are")
            )
        self._source, self._text, self._label = source, text, label
        self._dataset = dataset or _recognised(source)
        self._questions = questions
        self._on_hub = isinstance(source, str) and source.startswith(HUB)
        self._task: ManyShot | None = None

    def examples(
        self, length: int | None, *, split: Split, seed: int, count: int
    ) -> Iterator[Example]:
        """Yield documents of `length` rounds of demonstrations; see `ManyShot`."""
        return self._many_shot().examples(length, split=split, seed=seed, count=count)

    def score(self, answer: str, question: Question) -> float:
        """Return 1 if the answer's first line is the label, in either case; see `ManyShot`."""
        return self._many_shot().score(answer, question)

    def _many_shot(self) -> ManyShot:
        """Read the rows once, when they are first needed."""
        if self._task is None:
            train, test = self._rows()
            label = self._label or ("category" if "category" in train[0] else "label_text")
            try:
                self._task = ManyShot(
                    train,
                    test_rows=test,
                    text=self._text,
                    label=label,
                    name=self.name,
                    wording=WORDINGS.get(self._dataset or ""),
                    questions=self._questions,
                )
            except DocumentError as error:
                raise DocumentError(f"{self._source}: {error}") from None
        return self._task

    def _rows(self) -> tuple[list[Row], list[Row] | None]:
        if not self._on_hub and not Path(self._source).expanduser().is_dir():
            return self._read(), None
        return self._read("train"), self._read("test")

    def _read(self, split: str | None = None) -> list[Row]:
        # There a name is a configuration, and these data sets have one each.
        name = None if self._on_hub else self._dataset
        rows = list(read_rows(self._source, split=split, name=name))
        if not rows:
            raise DocumentError(f"{self._source} has no rows{f' in {split!r}' if split else ''}")
        return rows


def _recognised(source: Source) -> str | None:
    """Find the name of a data set in the source's, or in those of a folder's files."""
    path = Path(source).expanduser()
    files = " ".join(file.name for file in path.iterdir()) if path.is_dir() else ""
    return next((known for known in WORDINGS if known in f"{source} {files}".lower()), None)
