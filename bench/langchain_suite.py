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

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bench.table import Columns, Result, print_table
from tests.langchain.capable import CAPABLE

FOLDER = "TTT_SUITE_FOLDER"
"""The environment variable that tells the tests where the weights are."""

SCRIPTED = "TTT_SUITE_SCRIPTED"
"""Set where `CAPABLE` tests run on scripted weights."""

PEERS = {"ChatHuggingFace": "langchain_huggingface", "ChatTTT": "langchain_ttt"}

COLUMNS: Columns = {
    "class": lambda row: row["class"],
    "suite": lambda row: row["suite"],
    "passed": lambda row: str(row["passed"]),
    "failed": lambda row: str(row["failed"]),
    "skipped": lambda row: str(row["skipped"]),
    "xfailed": lambda row: str(row["xfailed"]),
}

_PACKAGES = ("langchain-core", "langchain-tests", "langchain-huggingface", "huggingface-hub",
             "transformers", "torch")  # fmt: skip
_ROOT = Path(__file__).parents[1]
_SEEDS = {"one": 0, "two": 1}

Outcome = Literal["passed", "failed", "skipped", "xfailed"]


class Case(NamedTuple):
    """One standard test and what became of it."""

    peer: str
    suite: str
    test: str
    outcome: Outcome
    message: str
    """Why, in one line; empty for those that passed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the suites, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PEERS, help="leave the others out")
    parser.add_argument("--no-script", action="store_true", help="random weights for all tests")
    parser.add_argument("-v", "--verbose", action="store_true", help="name what failed, and why")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    parser.add_argument("--output", type=Path, default=Path("results/langchain_suite.json"))
    options = parser.parse_args(arguments)
    peers = [options.only] if options.only else list(PEERS)
    missing = [peer for peer in peers if importlib.util.find_spec(PEERS[peer]) is None]
    peers = [peer for peer in peers if peer not in missing]
    cases = run(peers, scripted=not options.no_script) if peers else []
    rows = [row for peer in peers for row in summarise(peer, cases)]
    text = json.dumps(_content(rows, cases, options), indent=1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")
    if options.json:
        print(text)
    else:
        _show(rows, cases, options)
    if missing:
        raise SystemExit(
            f"not installed, so left out: {', '.join(missing)}; python -m pip install --no-deps "
            f"--constraint constraints.txt --group peers"
        )


def run(peers: Sequence[str], *, scripted: bool = True) -> list[Case]:
    """Run the standard tests of `peers` in one process.

    Raises:
        SystemExit: pytest itself failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _save_weights(folder)
        report = folder / "report.xml"
        done = subprocess.run(
            _command(peers, report),
            cwd=_ROOT,
            env=_environment(folder, scripted=scripted),
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise SystemExit(f"pytest failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return list(read(report))


def read(report: Path) -> Iterator[Case]:
    """Read pytest's JUnit report."""
    for element in ElementTree.parse(report).iter("testcase"):
        peer, suite = _peer_and_suite(element.get("classname", ""))
        yield Case(peer, suite, element.get("name", ""), *_outcome(element))


def summarise(peer: str, cases: Sequence[Case]) -> list[Result]:
    """Count the outcomes of one peer: a row a suite, and one for both."""
    own = [case for case in cases if case.peer == peer]
    suites = {
        suite: [case for case in own if case.suite == suite] for suite in ("unit", "integration")
    }
    return [_row(peer, suite, some) for suite, some in {**suites, "both": own}.items()]


def _row(peer: str, suite: str, cases: Sequence[Case]) -> Result:
    counts = Counter(case.outcome for case in cases)
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "skipped", "xfailed")
    return {"class": peer, "suite": suite, **{name: counts[name] for name in outcomes}}


def _peer_and_suite(classname: str) -> tuple[str, str]:
    name = classname.rpartition(".")[2].removeprefix("Test")
    for suite in ("Unit", "Integration"):
        if name.endswith(suite):
            return name.removesuffix(suite), suite.lower()
    return name, ""


def _outcome(element: ElementTree.Element) -> tuple[Outcome, str]:
    for child in element:
        message = (child.get("message") or "").partition("\n")[0]
        if child.tag in ("failure", "error"):
            return "failed", message
        if child.tag == "skipped":
            return "xfailed" if child.get("type") == "pytest.xfail" else "skipped", message
    return "passed", ""


def _save_weights(folder: Path) -> None:
    from transformers.utils import logging

    from tests.conftest import build_model
    from tests.scripted import WINDOW, scripted_tokenizer

    logging.disable_progress_bar()
    tokenizer = scripted_tokenizer(tools=True)
    for name, seed in _SEEDS.items():
        model = build_model("qwen3", seed=seed, max_position_embeddings=WINDOW)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _command(peers: Sequence[str], report: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pytest",
        str(_ROOT / "bench" / "langchain_classes.py"),
        "-q",
        "-k",
        " or ".join(f"Test{peer}" for peer in peers),
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",  # A peer's warnings are not its failures.
        f"--junitxml={report}",
    ]


def _environment(folder: Path, *, scripted: bool) -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT / "core"), str(_ROOT), os.environ.get("PYTHONPATH", "")])
    own = {
        FOLDER: str(folder),
        "HF_HUB_OFFLINE": "1",
        "TTT_HOME": str(folder / "home"),
        "PYTHONPATH": path.rstrip(os.pathsep),
    }
    return {**os.environ, **own, **({SCRIPTED: "1"} if scripted else {})}


def _show(rows: Sequence[Result], cases: Sequence[Case], options: argparse.Namespace) -> None:
    print_table(rows, COLUMNS)
    if options.no_script:
        print("all tests ran on random weights")
    else:
        print(f"on scripted weights, for every class: {', '.join(CAPABLE)}")
    if options.verbose:
        for case in cases:
            if case.outcome in ("failed", "xfailed"):
                print(f"{case.outcome:8}{case.peer} {case.suite} {case.test}: {case.message[:160]}")
    print(f"written to {options.output}")


def _content(rows: Sequence[Result], cases: Sequence[Case], options: argparse.Namespace) -> Result:
    return {
        "program": "langchain_suite",
        "scripted": [] if options.no_script else list(CAPABLE),
        "versions": {name: _version(name) for name in _PACKAGES},
        "rows": rows,
        "cases": [case._asdict() for case in cases],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
