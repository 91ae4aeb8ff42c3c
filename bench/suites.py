"""Running a suite of tests against two classes, and counting what became of it.

What `bench.langchain_suite` and `bench.llamaindex_suite` need alike: weights on disk, one pytest
process, its report, a table and a JSON file.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from bench.table import Columns, Result, print_table

FOLDER = "TTT_SUITE_FOLDER"
"""The environment variable that tells the tests where the weights are."""

COLUMNS: Columns = {
    "class": lambda row: row["class"],
    "suite": lambda row: row["suite"],
    "passed": lambda row: str(row["passed"]),
    "failed": lambda row: str(row["failed"]),
    "skipped": lambda row: str(row["skipped"]),
    "xfailed": lambda row: str(row["xfailed"]),
}

_ROOT = Path(__file__).parents[1]

Outcome = Literal["passed", "failed", "skipped", "xfailed"]


class Case(NamedTuple):
    """One test and what became of it."""

    peer: str
    suite: str
    test: str
    outcome: Outcome
    message: str
    """Why, in one line; empty for those that passed."""


@dataclass(frozen=True)
class Comparison:
    """A program that puts classes through suites.

    Test classes are named `Test`, the peer, the suite.

    Attributes:
        program: Its name, also that of the file of results.
        tests: The pytest module, in `bench/`.
        peers: By class, the module without which it cannot run.
        suites: Names of the suites as they stand in those of test classes.
        packages: Whose versions the results tell.
        total: What the row over all suites is called.
        seeds: By folder, the seeds of the random weights to save.
        environment: More variables for the tests.
        options: More arguments for pytest.
    """

    program: str
    tests: str
    peers: Mapping[str, str]
    suites: Sequence[str]
    packages: Sequence[str]
    total: str
    seeds: Mapping[str, int]
    environment: Mapping[str, str]
    options: Sequence[str] = ()


def parser_of(comparison: Comparison, about: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every such program takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", choices=comparison.peers, help="leave the others out")
    parser.add_argument("-v", "--verbose", action="store_true", help="name what failed, and why")
    parser.add_argument("--json", action="store_true", help="print JSON and no table")
    default = Path("results") / f"{comparison.program}.json"
    parser.add_argument("--output", type=Path, default=default)
    return parser


def compare(
    comparison: Comparison, options: argparse.Namespace, *, notes: Sequence[str], **more: object
) -> None:
    """Run the suites, print the table, write the JSON.

    Args:
        comparison: What to run.
        options: Arguments of the program.
        notes: Lines below the table.
        more: What else the JSON tells.

    Raises:
        SystemExit: pytest itself failed, or a class is not installed.
    """
    peers = [options.only] if options.only else list(comparison.peers)
    missing = [p for p in peers if importlib.util.find_spec(comparison.peers[p]) is None]
    peers = [peer for peer in peers if peer not in missing]
    cases = run(comparison, peers) if peers else []
    rows = [row for peer in peers for row in summarise(comparison, peer, cases)]
    content = {
        "program": comparison.program,
        **more,
        "versions": {name: _version(name) for name in comparison.packages},
        "rows": rows,
        "cases": [case._asdict() for case in cases],
    }
    text = json.dumps(content, indent=1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text + "\n")
    if options.json:
        print(text)
    else:
        _show(rows, cases, notes, options)
    if missing:
        raise SystemExit(
            f"not installed, so left out: {', '.join(missing)}; python -m pip install --no-deps "
            f"--constraint constraints.txt --group peers"
        )


def run(comparison: Comparison, peers: Sequence[str]) -> list[Case]:
    """Run the tests of `peers` in one process.

    Raises:
        SystemExit: pytest itself failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _save_weights(folder, comparison.seeds)
        report = folder / "report.xml"
        done = subprocess.run(
            _command(comparison, peers, report),
            cwd=_ROOT,
            env=_environment(folder, comparison.environment),
            capture_output=True,
            text=True,
        )
        if done.returncode not in (0, 1) or not report.exists():
            raise SystemExit(f"pytest failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return list(read(report, comparison))


def read(report: Path, comparison: Comparison) -> Iterator[Case]:
    """Read pytest's JUnit report; of what it tells twice of a test, the worse counts."""
    found: dict[tuple[str, str, str], Case] = {}
    for element in ElementTree.parse(report).iter("testcase"):
        peer, suite = _peer_and_suite(element.get("classname", ""), comparison)
        case = Case(peer, suite, element.get("name", ""), *_outcome(element))
        if case[:3] not in found or case.outcome == "failed":
            found[case[:3]] = case
    yield from found.values()


def summarise(comparison: Comparison, peer: str, cases: Sequence[Case]) -> list[Result]:
    """Count the outcomes of one peer: a row a suite, and one for all."""
    own = [case for case in cases if case.peer == peer]
    by_suite = {
        suite.lower(): [case for case in own if case.suite == suite.lower()]
        for suite in comparison.suites
    }
    return [_row(peer, name, some) for name, some in {**by_suite, comparison.total: own}.items()]


def _row(peer: str, suite: str, cases: Sequence[Case]) -> Result:
    counts = Counter(case.outcome for case in cases)
    outcomes: tuple[Outcome, ...] = ("passed", "failed", "skipped", "xfailed")
    return {"class": peer, "suite": suite, **{name: counts[name] for name in outcomes}}


def _peer_and_suite(classname: str, comparison: Comparison) -> tuple[str, str]:
    name = classname.rpartition(".")[2].removeprefix("Test")
    for suite in comparison.suites:
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


def _save_weights(folder: Path, seeds: Mapping[str, int]) -> None:
    from transformers.utils import logging

    from tests.conftest import build_model
    from tests.scripted import WINDOW, scripted_tokenizer

    logging.disable_progress_bar()
    tokenizer = scripted_tokenizer(tools=True)
    for name, seed in seeds.items():
        model = build_model("qwen3", seed=seed, max_position_embeddings=WINDOW)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _command(comparison: Comparison, peers: Sequence[str], report: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pytest",
        str(_ROOT / "bench" / comparison.tests),
        "-q",
        "-k",
        " or ".join(f"Test{peer}" for peer in peers),
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",  # A peer's warnings are not its failures.
        f"--junitxml={report}",
        *comparison.options,
    ]


def _environment(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join([str(_ROOT / "core"), str(_ROOT), os.environ.get("PYTHONPATH", "")])
    own = {
        FOLDER: str(folder),
        "HF_HUB_OFFLINE": "1",
        "TTT_HOME": str(folder / "home"),
        "PYTHONPATH": path.rstrip(os.pathsep),
    }
    return {**os.environ, **own, **more}


def _show(
    rows: Sequence[Result],
    cases: Sequence[Case],
    notes: Sequence[str],
    options: argparse.Namespace,
) -> None:
    print_table(rows, COLUMNS)
    for note in notes:
        print(note)
    if options.verbose:
        for case in cases:
            if case.outcome in ("failed", "xfailed"):
                print(f"{case.outcome:8}{case.peer} {case.suite} {case.test}: {case.message[:160]}")
    print(f"written to {options.output}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
