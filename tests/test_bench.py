"""The benchmarks: counts and checks behind every table. Nothing here is timed."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import adaptation, answering, attention, memory, questions, rates, scaling, steps
from bench import store as store_bench
from bench.checking import check, identical_share
from bench.counting import step_cost
from bench.measure import interleaved, measured_memory
from bench.models import SHAPES, build_model, kv_bytes
from bench.options import Setting
from bench.rates import measure_rates
from bench.suites import Case, Comparison, read, summarise
from ttt_core.config import AdaptationConfig
from ttt_core.evaluation.arms import parse_arm
from ttt_core.prefill import prefill
from ttt_core.runtime import Runtime

CPU = torch.device("cpu")
TINY = ["--model", "tiny", "--device", "cpu", "--threads", "1", "--repeat", "2"]

PROGRAMS: dict[ModuleType, list[str]] = {
    questions: ["--questions", "1", "3", "--new-tokens", "4"],
    adaptation: ["--positions", "16", "--steps", "2"],
    memory: ["--positions", "16", "--questions", "3", "--new-tokens", "4"],
    scaling: ["--positions", "16", "--questions", "1", "--new-tokens", "4"],
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run a program on a tiny model and return what it wrote; it fails where rows are void."""

    def run(
        program: ModuleType, *more: str, lengths: Sequence[int] = (64, 96), void: bool = False
    ) -> dict[str, Any]:
        output = tmp_path / "result.json"
        tokens = ["--tokens", *map(str, lengths)]
        arguments = [*TINY, *tokens, *PROGRAMS[program], *more, "--output", str(output)]
        with pytest.raises(SystemExit, match="void") if void else nullcontext():
            program.main(arguments)
        return dict(json.loads(output.read_text()))

    monkeypatch.setitem(rates.BUFFER_BYTES, "cpu", 2**20)
    yield run
    gc.unfreeze()


@pytest.fixture(scope="module")
def setting() -> Setting:
    """A tiny model whose attention is made of products that can be counted."""
    model = build_model(SHAPES["tiny"], dtype=torch.float32, device=CPU)
    runtime = Runtime(model, attention="reference")
    return Setting(SHAPES["tiny"], model, runtime, CPU, torch.float32)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_measures_prints_and_writes(
    program: ModuleType,
    run: Callable[..., dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run(program)
    assert {row["tokens"] for row in result["rows"]} == {64, 96}
    assert not any(row.get("void") for row in result["rows"])
    assert result["environment"]["threads"] == 1
    assert result["options"]["model"] == "tiny"
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == len(result["rows"]) + 2


def test_all_peers_answer_alike(run: Callable[..., dict[str, Any]]) -> None:
    rows = run(questions, lengths=[64])["rows"]
    assert {row["peer"] for row in rows} == set("abcdef")
    assert {row["identical"] for row in rows} == {1.0}
    assert all(row["seconds"] > 0 and row["a_over_this"] > 0 for row in rows)


def test_a_peer_that_answers_otherwise_is_void(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(setting: Setting, prefix: Any, asked: Any, new_tokens: int) -> Any:
        half = prefill(setting.runtime, prefix.input_ids[: len(prefix) // 2])
        return answering.shared_cache(setting, half, asked, new_tokens)

    wrong = questions.PEERS["c"]._replace(answer=forgetful)
    monkeypatch.setitem(questions.PEERS, "c", wrong)
    rows = run(questions, lengths=[64], void=True)["rows"]
    assert {row["peer"] for row in rows if row["void"]} == {"c"}
    assert all(row["seconds"] is None for row in rows if row["void"])
    monkeypatch.setitem(memory.PEERS, "generate, shared cache", (forgetful, lambda count: 1))
    void = [row["part"] for row in run(memory, lengths=[64], void=True)["rows"] if row.get("void")]
    assert void == ["3 questions, generate, shared cache"]


def test_a_step_with_another_loss_is_void(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = steps.Trainer.copied_cache
    monkeypatch.setattr(steps.Trainer, "copied_cache", lambda *args: 1.01 * right(*args))
    rows = run(adaptation, lengths=[64], void=True)["rows"]
    assert all(row["void"] and row["seconds"] is None for row in rows)


def test_too_many_copies_are_not_run(run: Callable[..., dict[str, Any]]) -> None:
    rows = run(questions, "--most-copied", "0", "--peers", "df", lengths=[64])["rows"]
    assert [row["note"][:7] for row in rows] == ["", "not run", "not run"]


def test_identical_tokens() -> None:
    assert identical_share([[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.75
    assert identical_share([[1, 2]], [[1]]) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_answers_are_void_in_any_dtype(dtype: torch.dtype) -> None:
    """In 16 bits, a tie that falls the other way is none; answers about another document are."""
    model = build_model(SHAPES["tiny"], dtype=dtype, device=CPU)
    setting = Setting(SHAPES["tiny"], model, Runtime(model), CPU, dtype)
    prefix = prefill(setting.runtime, setting.document(200))
    asked = setting.questions(4, 12)
    alone = answering.ours_one_by_one(setting, prefix, asked, 8).tokens
    stock = answering.whole_prompt(setting, prefix, asked, 8).tokens
    assert not check(setting, prefix, asked, alone, stock).void
    half = prefill(setting.runtime, setting.document(100))
    wrong = answering.ours_one_by_one(setting, half, asked, 8).tokens
    assert check(setting, prefix, asked, alone, wrong).void


@pytest.mark.parametrize("parametrization", ["lora", "full"])
@pytest.mark.parametrize("kind", ["random_span", "picked", "cloze"])
def test_the_floor_counts_what_a_step_computes(
    setting: Setting, kind: str, parametrization: str
) -> None:
    """Against PyTorch's own counter on the real step.

    Masked corners cost it a little more, and groups of picked positions read keys that some of
    them do not see.
    """
    config = AdaptationConfig.model_validate({"parametrization": parametrization})
    prefix = prefill(setting.runtime, setting.document(512))
    batch = steps.make_batches(setting, prefix, 16)[kind]
    cost = step_cost(setting.shape, batch, len(prefix), config, setting.dtype)
    trainer = steps.Trainer(setting, prefix, config)
    with FlopCounterMode(display=False) as counter:
        trainer.ours(batch)
    counted = counter.get_total_flops()
    counted_more = counted / (cost.operations + cost.unused)
    assert 0.95 < counted_more < (1.15 if kind == "picked" else 1.05)
    assert cost.unused < 0.05 * cost.operations


def test_the_floor_is_linear_in_the_document(setting: Setting) -> None:
    config = AdaptationConfig()
    operations = []
    for tokens in (256, 512, 1024):
        prefix = prefill(setting.runtime, setting.document(tokens))
        batch = steps.make_batches(setting, prefix, 16)["cloze"]
        operations.append(step_cost(setting.shape, batch, tokens, config, setting.dtype).operations)
    assert operations[2] - operations[1] == 2 * (operations[1] - operations[0])


def test_keys_and_values_are_as_large_as_predicted(setting: Setting) -> None:
    prefix = prefill(setting.runtime, setting.document(100))
    assert prefix.nbytes == kv_bytes(setting.shape, 100, setting.dtype)


def test_rates_are_positive(setting: Setting) -> None:
    measured = measure_rates(setting, 16, rounds=1)
    assert min(measured.square, measured.own, measured.bandwidth) > 0


def test_peers_take_turns() -> None:
    order: list[tuple[str, int]] = []
    peers = {name: lambda turn, name=name: order.append((name, turn)) for name in "abc"}
    times = interleaved(peers, rounds=2, device=CPU)  # type: ignore[arg-type]
    assert order == [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("c", 1), ("a", 1)]
    assert all(len(timed.seconds) == 2 for timed in times.values())


def test_memory_sees_what_came_and_went() -> None:
    def work() -> torch.Tensor:
        torch.ones(16 * 2**20)  # 64 MiB, forgotten at once.
        return torch.ones(4 * 2**20)  # 16 MiB, kept.

    found, _ = measured_memory(work, CPU)
    if found.peak is None or found.held is None:
        pytest.skip("not Linux")
    assert 60 * 2**20 < found.peak < 100 * 2**20
    assert 12 * 2**20 < found.held < 24 * 2**20


def test_the_store_is_measured_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "store.json"
    sizes = ["--entries", "5", "--kib", "1", "--repeat", "1"]
    store_bench.main([*sizes, "--folder", str(tmp_path), "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    assert [row["what"] for row in rows] == ["get", "miss", "put", "list", "ls", "verify"]
    assert all(row["seconds"] > 0 and row["floor"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == [output]
    assert capsys.readouterr().out.count("| 5 |") == len(rows)


def test_attention_is_measured_before_and_after_adapting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"steps": 1, "learning_rate": 1e-3, "held_out": 4, "gate": False}
    monkeypatch.setattr(attention, "RECIPE", AdaptationConfig.model_validate(recipe))
    output = tmp_path / "attention.json"
    few = ["--lines", "16", "32", "--seeds", "2", "--questions", "2"]
    attention.main([*few, "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    assert [(row["lines"], row["questions"], row["documents"]) for row in rows] == [
        (16, 4, 2),
        (32, 4, 2),
    ]
    for row in rows:
        gained = row["after"]["mass"] - row["before"]["mass"]
        assert row["gain"] == pytest.approx(gained, abs=1e-9)
        assert row["before"] != row["after"]
        # Within the length it was trained on, the model finds the line it is asked for.
        assert row["before"]["mass"] > 0.5
        assert row["before"]["half"] == 1.0
    assert rows[1]["enough"] > rows[0]["enough"]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == len(rows) + 2


def test_the_arms_of_make_evidence_exist() -> None:
    text = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(\w+) := ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE))
    for name in ("COMMON", "ABLATIONS", "IN_PLACE", "QUESTION", "COMPUTE"):
        arms = variables[name].replace("\\", "").split()
        # A spec that only says a default would have the name of another one.
        assert len({parse_arm(arm).name for arm in arms}) == len(arms) >= 3


def test_suites_are_counted_from_pytest_s_report(tmp_path: Path) -> None:
    comparison = Comparison("a_suite", "a.py", {"One": "one", "Two": "two"}, ("Unit", "Live"), (),
                            "both", {}, {})  # fmt: skip
    told = [
        ("OneUnit", "a", ""),
        ("OneUnit", "b", '<failure message="no&#10;more"/>'),
        ("OneLive", "a", '<skipped type="pytest.skip"/>'),
        ("OneLive", "b", '<skipped type="pytest.xfail"/>'),
        ("TwoLive", "a", ""),
        ("TwoLive", "a", '<error message="at the end"/>'),
    ]
    cases = "".join(
        f'<testcase classname="bench.a.Test{name}" name="{test}">{inside}</testcase>'
        for name, test, inside in told
    )
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    found = list(read(report, comparison))
    assert found[1] == Case("One", "unit", "b", "failed", "no")
    names = ("suite", "passed", "failed", "skipped", "xfailed")
    rows = [[row[name] for name in names] for row in summarise(comparison, "One", found)]
    assert rows == [["unit", 1, 1, 0, 0], ["live", 0, 0, 1, 1], ["both", 1, 1, 1, 1]]
    assert [case.outcome for case in found if case.peer == "Two"] == ["failed"]
