"""From options to an engine, and from documents to what can be asked; with progress on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_core.cli import console
from ttt_core.cli.inputs import is_registry
from ttt_core.cli.place import warn_of_pending
from ttt_core.errors import DocumentError
from ttt_core.sandbox import bundled_model_path

if TYPE_CHECKING:
    from ttt_core import AdaptedDocument, TTTEngine
    from ttt_core.cli.options import Setup
    from ttt_core.document import Document
    from ttt_core.store import AdapterStore

_CHARACTERS_PER_TOKEN = 8

_TOY = (
    "note: the bundled model is a toy that only answers 'Where is X?' over lines like "
    "'amber falcon: Oslo'; for real text pass a real one, such as --model Qwen/Qwen3-4B"
)


def model_name(setup: Setup) -> str:
    """What is loaded: an id or a folder."""
    return setup.model or str(bundled_model_path())


def warn_of_toy(setup: Setup, documents: Sequence[Document]) -> None:
    """Say in one line when the bundled model meets a text that it was not made for."""
    if model_name(setup) == str(bundled_model_path()) and not all(map(is_registry, documents)):
        console.note(_TOY)


@contextmanager
def opened(setup: Setup) -> Iterator[TTTEngine]:
    """Load the engine, and close it after the block."""
    store = setup.place.open()
    with _nothing_stored():
        engine = _load(setup, store)
    with engine:
        yield engine
    if setup.place.remote:
        warn_of_pending(store)


def learn(
    engine: TTTEngine,
    documents: Sequence[Document],
    setup: Setup,
    *,
    question: str | None = None,
) -> AdaptedDocument:
    """Read the documents and, unless told otherwise, adapt to them; maybe for one question."""
    if setup.runtime.on_overflow == "error":
        _refuse_hopeless(engine, documents)
    with _nothing_stored(), console.Bars() as bars:
        if setup.adaptation is None:
            adapted = engine.read(documents, system=setup.system, on_progress=bars)
        else:
            adapted = engine.adapt(
                documents, question=question, system=setup.system, on_progress=bars
            )
    if adapted.dropped_tokens:
        console.note(
            f"note: the document is longer than the model's window; {adapted.dropped_tokens:,} "
            f"of its tokens were cut off"
        )
    return adapted


def learn_each(
    engine: TTTEngine, documents: Sequence[Document], setup: Setup
) -> list[AdaptedDocument]:
    """Read and adapt to each document by itself."""
    if setup.runtime.on_overflow == "error":
        _refuse_hopeless(engine, documents)
    with _adapters_stored(), console.Bars() as bars:
        adapted = engine.adapt_many(documents, system=setup.system, on_progress=bars)
    cut = sum(document.dropped_tokens > 0 for document in adapted)
    if cut:
        console.note(f"note: {cut:,} documents are longer than the model's window; they were cut")
    return adapted


def _refuse_hopeless(engine: TTTEngine, documents: Sequence[Document]) -> None:
    """Judge a huge file by its beginning: tokenising all of it takes minutes, deaf to Ctrl-C."""
    window = engine.window
    for document in documents:
        begin = document.text[: _CHARACTERS_PER_TOKEN * window]
        tokens = engine.count_tokens(begin)
        if tokens > window and len(begin) < len(document.text):
            about = tokens * len(document.text) // len(begin)
            raise DocumentError(
                f"{document.title} has about {about:,} tokens, but the model's window is "
                f"{window:,}. Use a shorter document or a model with a longer window, or cut it "
                f"with --on-overflow keep_start or keep_end."
            )


def _load(setup: Setup, store: AdapterStore) -> TTTEngine:
    name = model_name(setup)
    if not Path(name).is_dir():  # The Hub's download bars and a spinner would overwrite each other.
        console.status(f"loading {name}; the first use downloads it")
        return _loaded_engine(name, setup, store)
    with console.waiting("loading the model"):
        return _loaded_engine(name, setup, store)


def _loaded_engine(name: str, setup: Setup, store: AdapterStore) -> TTTEngine:
    from ttt_core.engine import TTTEngine

    engine = TTTEngine.from_pretrained(
        name,
        device=setup.device,
        dtype=setup.dtype,
        adaptation=setup.adaptation,
        runtime=setup.runtime,
        store=store,
    )
    with _quiet_transformers():
        _ = engine.window  # Loads now, not in the middle of a progress bar.
    return engine


@contextmanager
def _nothing_stored() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was learned") from None


@contextmanager
def _adapters_stored() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "what was adapted so far is stored; run it again to go on"
        ) from None


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No log lines and no bars of transformers; a person still sees the Hub's downloads."""
    from huggingface_hub.utils import logging as hub
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as library

    before = library.get_verbosity(), hub.get_verbosity()
    bars = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    hub.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    if console.interactive():
        enable_progress_bars()
    try:
        yield
    finally:
        library.set_verbosity(before[0])
        hub.set_verbosity(before[1])
        if bars:
            library.enable_progress_bar()
