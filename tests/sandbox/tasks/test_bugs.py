"""Bug localisation: one changed line in real code, and only the meaning tells which."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.errors import ConfigError, DocumentError
from ttt_core.examples import Example, Question, Split, Task
from ttt_core.sandbox.tasks.bugs import BugLocalization
from ttt_core.sandbox.tasks.code_modules import read_module, standard_library
from ttt_core.sandbox.tasks.mutations import KINDS

LINE = re.compile(r"(?P<file>[^:]+):L(?P<number>\d+)\|(?: (?P<code>.*))?")
EXAMPLES = 5


@cache
def examples(length: int, split: Split, seed: int) -> tuple[Example, ...]:
    return tuple(BugLocalization().examples(length, split=split, seed=seed, count=EXAMPLES))


def files_of(example: Example) -> set[str]:
    return {line.partition(":")[0] for line in example.document.splitlines()}


def wrong_lines(example: Example) -> list[str]:
    """The lines of the document that differ from the library's files."""
    root, texts = standard_library().root, dict[str, list[str]]()
    wrong = []
    for line in example.document.splitlines():
        found = LINE.fullmatch(line)
        assert found
        file = found["file"]
        texts.setdefault(file, (root / file).read_text(encoding="ascii").split("\n"))
        if (found["code"] or "") != texts[file][int(found["number"]) - 1].rstrip():
            wrong.append(line)
    return wrong


@pytest.mark.parametrize("length", [100, 400])
def test_one_line_differs_from_the_library_and_it_is_the_needle(length: int) -> None:
    for example in examples(length, "score", 0):
        [question] = example.questions
        assert len(example.document.splitlines()) == length == example.length
        assert tuple(wrong_lines(example)) == question.needles
        assert question.needles[0].startswith(f"{question.references[0]}| ")


@pytest.mark.parametrize("seed", range(2))
def test_longer_documents_hold_the_shorter_ones_and_the_same_bug(seed: int) -> None:
    lengths = [examples(length, "score", seed) for length in (60, 100, 400)]
    for short, middle, long in zip(*lengths, strict=True):
        assert is_subsequence(short, middle)
        assert is_subsequence(middle, long)
        for attribute in ("text", "references", "needles", "groups"):
            values = [getattr(each.questions[0], attribute) for each in (short, middle, long)]
            assert values[0] == values[1] == values[2]


def is_subsequence(short: Example, long: Example) -> bool:
    rest = iter(long.document.splitlines())
    return all(line in rest for line in short.document.splitlines())


def test_the_same_arguments_give_the_same_documents_and_other_seeds_others() -> None:
    again = BugLocalization().examples(100, split="score", seed=0, count=EXAMPLES)
    assert tuple(again) == examples(100, "score", 0)
    documents = [each.document for seed in range(3) for each in examples(100, "score", seed)]
    assert len(set(documents)) > 0.9 * len(documents)


def test_the_splits_share_no_file() -> None:
    tune, score = (
        {file for example in examples(400, split, 0) for file in files_of(example)}
        for split in ("tune", "score")
    )
    assert len(tune) > 5
    assert tune.isdisjoint(score)


def test_the_question_gives_neither_file_nor_line() -> None:
    for example in examples(100, "score", 1):
        [question] = example.questions
        file, _, number = question.references[0].rpartition(":L")
        asked = question.text.replace("path/file.py:L123", "")
        assert file not in asked
        assert not re.search(rf"\b{number}\b", asked.partition("Which line")[0])


def test_no_other_module_has_a_function_of_the_name() -> None:
    for example in examples(400, "score", 0):
        [question] = example.questions
        name = question.text.split("`")[1]
        own = question.references[0].partition(":")[0]
        for file in files_of(example) - {own}:
            module = read_module(standard_library().root, file)
            assert module
            assert name not in [function.name for function in module.functions]


def test_every_kind_of_bug_is_as_frequent_and_results_say_which_library() -> None:
    questions = [
        question
        for seed in range(5)
        for each in examples(100, "score", seed)
        for question in each.questions
    ]
    # 25 draws among ten kinds: five or fewer have a chance of at most 252 / 2**25 = 8e-6.
    kinds = {question.groups["mutation"] for question in questions}
    assert len(kinds) >= 6
    assert kinds <= set(KINDS)
    version = ".".join(map(str, sys.version_info[:2]))
    assert questions[0].groups["library"].startswith(f"python-{version}")


QUESTION = Question(id="0", text="", references=("json/decoder.py:L23",))


@pytest.mark.parametrize(
    "answer",
    [
        "json/decoder.py:L23",
        "json/decoder.py:23",
        "decoder.py:L23",
        "./json/decoder.py:l23",
        "json\\decoder.py:L23",
        "`json/decoder.py:L23`.",
        "json/decoder.py:L23|         return None",
        "**json/decoder.py**, line 23",
        'File "json/decoder.py", line 23',
        "line 23 of json/decoder.py",
        "Line 23 in the file `decoder.py`",
        "L23 of decoder.py",
        '{"file": "json/decoder.py", "line": 23}',
        "It is not json/decoder.py:L20 but json/decoder.py:L23.",
        "json/decoder.py (line 23)",
    ],
)
def test_places_are_read_in_the_usual_forms(answer: str) -> None:
    assert BugLocalization().score(answer, QUESTION) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "23",
        "line 23",
        "json/decoder.py",
        "json/decoder.py:L2",
        "json/decoder.py:L231",
        "json/encoder.py:L23",
        "xdecoder.py:L23",
        "asyncio/json/decoder.py:L23",
        "json/decoder.py:L23, json/decoder.py:L24",
        "json/decoder.py:L23-L40",
        "json/decoder.py:23-40",
        "json/decoder.pyc:L23",
        "json/decoder.py:L" + "1" * 5000,
    ],
)
def test_other_places_are_wrong(answer: str) -> None:
    assert BugLocalization().score(answer, QUESTION) == 0


@given(file=st.sampled_from(["a.py", "a/b.py", "a/__init__.py"]), line=st.integers(1, 9999))
def test_every_reference_is_right_and_its_neighbours_are_wrong(file: str, line: int) -> None:
    question = Question(id="0", text="", references=(f"{file}:L{line}",))
    assert BugLocalization().score(question.references[0], question) == 1
    assert BugLocalization().score(f"{file}:L{line + 1}", question) == 0


OWN = '''def first(items, limit):
    """Count."""
    count = 0
    for item in items:
        if item.size >= limit:
            continue
        count += item.count
    return count
'''
"""Bugs fit into line 5 (`>`, or `count` for `limit`) and line 6 (`break`); not into 1 (no default),
2 to 4 (nothing is decided), 7 (a sum, perhaps of strings) and 8 (not a literal)."""


def make_folder(folder: Path, *, modules: int = 12) -> Path:
    """A folder with modules of 70 lines; two lines of each can err."""
    folder.mkdir(exist_ok=True)
    for number in range(modules):
        text = OWN.replace("first", f"first_{number}") + "# Nothing.\n" * 62
        (folder / f"module_{number}.py").write_text(text, encoding="ascii")
    return folder


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), modules=st.integers(1, 3))
def test_chance_is_one_over_the_lines_that_can_err(
    tmp_path_factory: pytest.TempPathFactory, seed: int, modules: int
) -> None:
    # Each module of 70 lines has two such lines (see OWN): a guess among 2 m is right once in 2 m.
    task = BugLocalization(make_folder(tmp_path_factory.getbasetemp() / "own"))
    [example] = task.examples(70 * modules, split="score", seed=seed, count=1)
    [question] = example.questions
    assert question.chance == pytest.approx(1 / (2 * modules))
    # Whichever bug of OWN it is, no other line of the function could have one of its kind.
    assert question.groups["mutation"] in ("boundary", "break-continue", "wrong-variable")
    assert question.groups["alike"] == "1"
    assert question.groups["library"] == "own"


def test_unusable_files_are_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own", modules=1)
    bad = {
        "ascii.py": b"x = 'caf\xc3\xa9'\n",
        "syntax.py": b"print 1\n",
        "made.py": b"# This file is generated by a script.\n",
        "page.py": b"x = 1\n\x0cy = 2\n",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
        assert read_module(root, name) is None
    assert read_module(root, "module_0.py") is not None
    assert read_module(root, "missing.py") is None


def test_the_library_has_no_tests_in_it() -> None:
    paths = standard_library().paths()
    assert len(paths) > 200
    assert list(paths) == sorted(paths)
    assert not any(folder in path.split("/") for path in paths for folder in ("test", "idlelib"))


@pytest.mark.parametrize("length", [None, 0, -5, 59])
def test_lengths_without_room_for_a_function_are_refused(length: int | None) -> None:
    with pytest.raises(ConfigError, match=r"lines must be at least 60"):
        next(BugLocalization().examples(length, split="score", seed=0, count=1))


def test_too_little_code_is_said(tmp_path: Path) -> None:
    task = BugLocalization(make_folder(tmp_path / "own"))
    with pytest.raises(ConfigError, match=r"found \d+: ask for shorter"):
        next(task.examples(5000, split="score", seed=0, count=1))
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(DocumentError, match="expected Python modules"):
            next(BugLocalization(tmp_path / folder).examples(100, split="score", seed=0, count=1))
    (tmp_path / "empty" / "short.py").write_text("x = 1\n", encoding="ascii")
    for split in ("tune", "score"):
        with pytest.raises(DocumentError, match="expected a function of 8 to 60 lines"):
            next(BugLocalization(tmp_path / "empty").examples(100, split=split, seed=0, count=1))


def test_it_is_a_task_and_needs_no_torch() -> None:
    assert isinstance(BugLocalization(), Task)
    code = (
        "import sys; from ttt_core.sandbox.tasks import bugs, retrieval, tracking;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
