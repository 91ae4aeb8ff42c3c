"""`ttt adapt`: adapt ahead of the first question, and say what it brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ttt_core.cli import console
from ttt_core.cli.inputs import read_documents
from ttt_core.cli.report import corpus_table, document_json, report_table
from ttt_core.cli.work import learn, learn_each, model_name, opened, warn_of_toy

if TYPE_CHECKING:
    from ttt_core.cli.options import Setup


def adapt(names: Sequence[str], setup: Setup, *, as_json: bool) -> None:
    """Adapt to the documents together and print the report."""
    documents = read_documents(names)
    warn_of_toy(setup, documents)
    with opened(setup) as engine:
        adapted = learn(engine, documents, setup)
        if as_json:
            console.write_json({"model": model_name(setup), **document_json(names, adapted)})
        else:
            console.heading(", ".join(document.title or "text" for document in documents))
            console.show(report_table(adapted))


def adapt_each(names: Sequence[str], setup: Setup, *, as_json: bool) -> None:
    """Adapt to each document by itself and print a line about each."""
    documents = read_documents(names)
    warn_of_toy(setup, documents)
    with opened(setup) as engine:
        adapted = learn_each(engine, documents, setup)
        pairs = list(zip(names, adapted, strict=True))
        if as_json:
            reports = [document_json([name], document) for name, document in pairs]
            console.write_json({"model": model_name(setup), "documents": reports})
        else:
            console.show(corpus_table(pairs))
