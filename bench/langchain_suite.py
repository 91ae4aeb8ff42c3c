"""How many of LangChain's standard tests does ChatTTT pass, and how many does ChatHuggingFace?

    python -m bench.langchain_suite
    python -m bench.langchain_suite --verbose --only ChatTTT

Both run `langchain-tests`' unit and integration suites in one run, on the same small random
weights and with the same claims switched on: tool calling, tool choice, structured output and
JSON mode, all of which both offer. ChatHuggingFace is HuggingFacePipeline's, as its documentation
shows it. What neither claims (images, PDFs, audio, recorded answers) is skipped.

Some tests need a model that knows what to say. For these, both get the same scripted weights (see
tests/scripted.py), which say what a capable model would say to the prompt that reached them;
`--no-script` leaves them on random weights. ChatHuggingFace is not a dependency, see the group
`peers` in pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.suites import Comparison, compare, parser_of
from tests.langchain.capable import CAPABLE

SCRIPTED = "TTT_SUITE_SCRIPTED"
"""Set where `CAPABLE` tests run on scripted weights."""

COMPARISON = Comparison(
    program="langchain_suite",
    tests="langchain_classes.py",
    peers={"ChatHuggingFace": "langchain_huggingface", "ChatTTT": "langchain_ttt"},
    suites=("Unit", "Integration"),
    packages=("langchain-core", "langchain-tests", "langchain-huggingface", "huggingface-hub",
              "transformers", "torch"),
    total="both",
    seeds={"one": 0, "two": 1},
    environment={SCRIPTED: "1"},
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suites, print the table, write the JSON."""
    parser = parser_of(COMPARISON, __doc__.splitlines()[0])
    parser.add_argument("--no-script", action="store_true", help="random weights for all tests")
    options = parser.parse_args(arguments)
    if options.no_script:
        plain = replace(COMPARISON, environment={})
        compare(plain, options, notes=["all tests ran on random weights"], scripted=[])
        return
    note = f"on scripted weights, for every class: {', '.join(CAPABLE)}"
    compare(COMPARISON, options, notes=[note], scripted=list(CAPABLE))


if __name__ == "__main__":
    main()
