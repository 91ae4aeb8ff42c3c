"""How much of what LlamaIndex's users may expect of an LLM does TTTLLM do, and HuggingFaceLLM?

    python -m bench.llamaindex_suite
    python -m bench.llamaindex_suite --verbose --only TTTLLM

LlamaIndex has no suite of tests for LLM classes. Both run ours, tests/llamaindex/conformance, in
one run and on the same weights: small random ones, and where an answer must make sense, scripted
ones (see tests/scripted.py), which say what a capable model would say to the prompt that reached
them. HuggingFaceLLM gets a model and a tokenizer, as its documentation shows, and is told that the
model is one for chats. Tools and thinking, which it does not claim, are skipped for it; that agents
and structured output work is asked of both. Failures by where they lie:

    calls           eight methods, streams, options of a call, the window, usage
    events          callbacks, instrumentation, counted tokens
    asynchrony      event loop, cancelling, closing, errors
    prediction      predict, apredict, stream, astream
    structuredoutput, tools, agents, synthesis, chatengines
    objects         metadata, serialised forms, copies

HuggingFaceLLM is not a dependency, see the group `peers` in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.suites import Comparison, compare, parser_of
from tests.llamaindex.conformance import AREAS

COMPARISON = Comparison(
    program="llamaindex_suite",
    tests="llamaindex_classes.py",
    peers={"HuggingFaceLLM": "llama_index.llms.huggingface", "TTTLLM": "llamaindex_ttt"},
    suites=tuple(AREAS),
    packages=("llama-index-core", "llama-index-llms-huggingface", "transformers", "torch"),
    total="all",
    seeds={},
    environment={},
    # By signal: by thread, the first test that hangs would end the run.
    options=("--timeout=60", "--timeout-method=signal"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suite, print the table, write the JSON."""
    options = parser_of(COMPARISON, __doc__.splitlines()[0]).parse_args(arguments)
    compare(COMPARISON, options, notes=["a test that takes more than 60 seconds has failed"])


if __name__ == "__main__":
    main()
