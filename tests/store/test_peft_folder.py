"""Adapters as PEFT folders: PEFT computes what we compute, and an import trusts nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ttt_core.adapter import QueryAdapter
from ttt_core.config import AdaptationConfig
from ttt_core.errors import ConfigError, StoreError
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import Namespace
from ttt_core.prefill import prefill
from ttt_core.report import AdaptationReport
from ttt_core.runtime import Runtime
from ttt_core.store.format import QueryRows, StoredAdapter
from ttt_core.store.peft_export import export_adapter
from ttt_core.store.peft_folder import (
    ABOUT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    QTTTFolder,
    checksum_of,
)
from ttt_core.store.peft_import import import_adapter

# PEFT 0.21 asks a model for it by the name that transformers 5.23 gave up.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

MakeModel = Callable[..., PreTrainedModel]

NAMES = [
    "qwen3",
    "llama",
    "phi3-fused-sliding",
    "gpt-neox-fused",
    "gemma3-mixed",
    "deepseek-v3-mla",
    "deepseek-v3-mla-no-q-rank",
    "gpt-oss-sinks",
]
FILES = (CONFIG_FILE, WEIGHTS_FILE, ABOUT_FILE)
N_DOCUMENT, N_SUFFIX = 40, 12
TOLERANCE = 2e-5  # fp32, relative to logits of order one
NAMESPACE = Namespace()
SEALED = Namespace("acme", b"sixteen bytes or more")


def make_entry(
    weights: dict[str, torch.Tensor],
    rows: dict[str, QueryRows] | None = None,
    *,
    decision: Any = "adapted",
    **recipe: Any,
) -> StoredAdapter:
    config = AdaptationConfig.model_validate(recipe)
    identity = AdapterIdentity(
        base="a" * 64, tokenizer="b" * 64, template="c" * 64, prefix="d" * 64, config=config
    )
    report = AdaptationReport(
        decision=decision,
        reasons=("better",),
        parametrization=config.parametrization,
        supervision=config.supervision,
        document_tokens=N_DOCUMENT,
        losses=(1.25, 0.1),
        drift=1e-05,
        seconds={"train": 0.3},
    )
    created = datetime(2026, 11, 22, 10, 0, tzinfo=timezone.utc)
    return StoredAdapter(identity, report, weights, "./model", rows or {}, created)


def small_entry(*, r: int = 2, parametrization: str = "lora") -> StoredAdapter:
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(2):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        if parametrization == "full":
            shapes[f"{name}.delta"] = (6, 4)
        else:
            shapes |= {f"{name}.lora_A.weight": (r, 4), f"{name}.lora_B.weight": (6, r)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return make_entry(weights, parametrization=parametrization, r=r, lora_alpha=2 * r)


def adapter_entry(
    runtime: Runtime, *, parametrization: str = "lora", scale: float = 0.1
) -> tuple[QueryAdapter, StoredAdapter]:
    """A random adapter of a model, and the entry that a store would hold of it."""
    recipe: dict[str, Any] = {"parametrization": parametrization, "r": 4, "lora_alpha": 6}
    config = AdaptationConfig.model_validate(recipe)
    adapter = QueryAdapter.create(runtime.architecture.projections, config)
    rows = {p.name: p.rows for p in runtime.architecture.projections}
    generator = torch.Generator().manual_seed(1)
    state = adapter.state_dict()
    for name, weight in state.items():
        noise = torch.randn(weight.shape, generator=generator) * scale
        keep = (
            rows[name.removeprefix("base_model.model.").rsplit(".", 2)[0]]
            if (parametrization == "lora")
            else None
        )
        if name.endswith("lora_B.weight") and keep is not None:
            others = torch.ones(len(noise), dtype=torch.bool)
            others[keep] = False
            noise[others] = 0
        state[name] = noise
    adapter.load_state_dict(state)
    found = {
        name: QueryRows(out_features=out, ranges=ranges)
        for name, (out, ranges) in adapter.query_rows().items()
    }
    return adapter, make_entry(state, found, **recipe)


def tokens(n: int) -> torch.Tensor:
    return torch.randint(3, 300, (n,), generator=torch.Generator().manual_seed(0))


def logits(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(input_ids=ids[None], **options).logits[0]
    return out


def adapted_logits(
    model: PreTrainedModel, adapter: QueryAdapter, ids: torch.Tensor
) -> torch.Tensor:
    with adapter.bound(model):
        return logits(model, ids)


def qttt_logits(runtime: Runtime, adapter: QueryAdapter, ids: torch.Tensor) -> torch.Tensor:
    """Ours: the document read by the base, what follows it by the adapted model."""
    prefix = prefill(runtime, ids[:N_DOCUMENT].tolist())
    n = len(ids) - N_DOCUMENT
    tails = runtime.attention.tails(prefix)
    with runtime.turn(adapter) as model, torch.no_grad():
        return tails.forward(
            model,
            input_ids=ids[N_DOCUMENT:],
            position_ids=torch.arange(N_DOCUMENT, len(ids)),
            segment_ids=torch.zeros(n, dtype=torch.long),
            logits_at=torch.arange(n),
        )


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max() / max(float(right.abs().max()), 1.0))


# ---------------------------------------------------------------- PEFT computes what we compute


@pytest.mark.parametrize("name", NAMES)
def test_peft_loads_an_exported_lora_to_the_same_logits(
    name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(name)
    runtime = Runtime(model)
    adapter, entry = adapter_entry(runtime)
    report = export_adapter(entry, tmp_path / "peft", namespace=NAMESPACE)
    assert (report.exact, report.relative_error, report.rank) == (True, 0.0, 4)
    ids = tokens(N_DOCUMENT + N_SUFFIX)

    loaded = PeftModel.from_pretrained(make_model(name), tmp_path / "peft")
    everywhere = logits(loaded, ids)
    assert distance(everywhere, adapted_logits(model, adapter, ids)) < TOLERANCE
    assert distance(everywhere, logits(model, ids)) > 1e-3

    cache = DynamicCache(config=model.config)
    with loaded.disable_adapter():
        logits(loaded, ids[:N_DOCUMENT], past_key_values=cache)
    behind = logits(loaded, ids[N_DOCUMENT:], past_key_values=cache)
    assert distance(behind, qttt_logits(runtime, adapter, ids)) < TOLERANCE
    assert distance(behind, everywhere[N_DOCUMENT:]) > 1e-3  # What `requires_base_kv` is about.


@pytest.mark.parametrize("name", NAMES)
def test_a_dense_change_at_full_rank_is_the_same_as_lora(
    name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(name)
    adapter, entry = adapter_entry(Runtime(model), parametrization="full", scale=0.03)
    report = export_adapter(entry, tmp_path / "peft", namespace=NAMESPACE)
    assert not report.exact
    assert report.relative_error < 1e-5
    loaded = PeftModel.from_pretrained(make_model(name), tmp_path / "peft")
    ids = tokens(N_DOCUMENT)
    expected = adapted_logits(model, adapter, ids)
    assert distance(logits(loaded, ids), expected) < TOLERANCE
    assert distance(expected, logits(model, ids)) > 1e-3


@pytest.mark.parametrize("name", ["qwen3", "phi3-fused-sliding", "gpt-neox-fused"])
def test_errors_of_a_low_rank_are_the_measured_ones(
    name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    """And the smallest possible: those of the singular values that were left out."""
    runtime = Runtime(make_model(name))
    _, entry = adapter_entry(runtime, parametrization="full")
    report = export_adapter(entry, tmp_path / "peft", namespace=NAMESPACE, rank=1)
    factors = load_file(tmp_path / "peft" / WEIGHTS_FILE)
    missed = norm = 0.0
    for projection in runtime.architecture.projections:
        path = f"base_model.model.{projection.name}"
        delta = entry.weights[f"{path}.delta"].double()
        change = torch.zeros(projection.module.out_features, delta.shape[1]).double()
        change[slice(None) if projection.rows is None else projection.rows] = delta
        up, down = (factors[f"{path}.lora_{x}.weight"].double() for x in "BA")
        assert up.norm() == pytest.approx(float(down.norm()), rel=1e-4)  # Neither overflows first.
        error = float((change - up @ down).norm())
        values = torch.linalg.svdvals(delta)
        assert error == pytest.approx(float(values[1:].norm()), rel=1e-4)
        assert report.relative_errors[projection.name] == pytest.approx(
            error / float(values.norm()), rel=1e-4
        )
        missed, norm = missed + error**2, norm + float(values.norm()) ** 2
    assert report.relative_error == pytest.approx((missed / norm) ** 0.5, rel=1e-4)
    assert 0.5 < report.relative_error < 1
    about = QTTTFolder.model_validate_json((tmp_path / "peft" / ABOUT_FILE).read_bytes())
    assert (about.exact, about.relative_error) == (False, report.relative_error)
    assert about.relative_errors == report.relative_errors


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_an_alora_keeps_base_keys_and_values_by_itself(
    name: str, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model(name)
    runtime = Runtime(model)
    adapter, entry = adapter_entry(runtime)
    ids = tokens(N_DOCUMENT + N_SUFFIX)
    invocation = ids[N_DOCUMENT : N_DOCUMENT + 3].tolist()
    export_adapter(
        entry, tmp_path / "peft", namespace=NAMESPACE, alora_invocation_tokens=invocation
    )
    loaded = PeftModel.from_pretrained(make_model(name), tmp_path / "peft")
    found = logits(loaded, ids)
    assert distance(found[N_DOCUMENT:], qttt_logits(runtime, adapter, ids)) < TOLERANCE
    assert distance(found[:N_DOCUMENT], logits(model, ids)[:N_DOCUMENT]) < TOLERANCE
    # As qttt.json says: a later second occurrence is what counts.
    twice = torch.cat([ids, torch.tensor(invocation)])
    assert distance(logits(loaded, twice), qttt_logits_of(loaded, twice, len(ids))) < TOLERANCE
    imported, about = import_adapter(tmp_path / "peft")
    assert_same(imported, entry)
    assert about.alora is not None
    assert about.alora.invocation_tokens == tuple(invocation)


def qttt_logits_of(loaded: Any, ids: torch.Tensor, start: int) -> torch.Tensor:
    """Full logits of an aLoRA that is on from `start`."""
    return logits(loaded, ids, alora_offsets=[len(ids) - start])


# ---------------------------------------------------------------- what is written


def test_peft_reads_the_config_as_one_of_its_own(tmp_path: Path) -> None:
    """Every field that we write is what PEFT would write itself, and no other deviates."""
    export_adapter(small_entry(), tmp_path / "peft", namespace=NAMESPACE)
    own = LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=2,
        lora_alpha=4,
        target_modules=["q_proj"],
        base_model_name_or_path="./model",
    )
    own.save_pretrained(str(tmp_path / "own"))
    theirs = json.loads((tmp_path / "own" / CONFIG_FILE).read_text())
    ours = json.loads((tmp_path / "peft" / CONFIG_FILE).read_text())
    assert ours == {name: theirs[name] for name in ours}
    loaded = LoraConfig.from_pretrained(str(tmp_path / "peft")).to_dict()
    assert loaded == LoraConfig.from_pretrained(str(tmp_path / "own")).to_dict()
    assert ours["alora_invocation_tokens"] is None


def test_qttt_json_says_what_a_server_has_to_know(tmp_path: Path) -> None:
    entry = small_entry()
    report = export_adapter(
        entry, tmp_path / "peft", namespace=SEALED, alora_invocation_tokens=[7, 8]
    )
    said = json.loads((tmp_path / "peft" / ABOUT_FILE).read_text())
    data = (tmp_path / "peft" / WEIGHTS_FILE).read_bytes()
    assert said["requires_base_kv"] is True
    assert "base model" in said["meaning"]
    assert "alora_offsets" in said["alora"]["condition"]
    assert said["key"] == report.key == entry.identity.key(SEALED)
    assert (said["namespace"], said["sealed"]) == ("acme", True)
    assert said["identity"] == entry.identity.model_dump(mode="json")
    assert said["document_tokens"] == N_DOCUMENT
    assert said["sha256"] == hashlib.sha256(data).hexdigest()
    assert SEALED.secret is not None
    for name in FILES:
        written = (tmp_path / "peft" / name).read_bytes()
        assert SEALED.secret not in written
        assert SEALED.secret.hex().encode() not in written


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_others_cannot_look_into_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        export_adapter(small_entry(), tmp_path / "peft", namespace=NAMESPACE)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / "peft" / name).stat().st_mode) for name in FILES}
    assert modes == dict.fromkeys(FILES, 0o600)
    assert stat.S_IMODE((tmp_path / "peft").stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["peft"]


def test_only_an_earlier_export_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "peft"
    folder.mkdir(parents=True)
    export_adapter(small_entry(r=2), folder, namespace=NAMESPACE)
    with pytest.raises(StoreError, match="pass another folder"):
        export_adapter(small_entry(r=3), folder, namespace=NAMESPACE)
    assert import_adapter(folder)[0].identity.config.r == 2
    export_adapter(small_entry(r=3), folder, namespace=NAMESPACE, overwrite=True)
    assert import_adapter(folder)[0].identity.config.r == 3
    (folder / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="other files"):
        export_adapter(small_entry(r=4), folder, namespace=NAMESPACE, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "precious"
    assert [path.name for path in folder.parent.iterdir()] == ["peft"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failure_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, overwrite: bool
) -> None:
    folder = tmp_path / "peft"
    if overwrite:
        export_adapter(small_entry(r=2), folder, namespace=NAMESPACE)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    rename = Path.rename
    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(
                Path, "rename", lambda path, to: (full if path.name == "new" else rename)(path, to)
            )
        with pytest.raises(StoreError, match="No space left"):
            export_adapter(small_entry(r=3), folder, namespace=NAMESPACE, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["peft"] * overwrite
    if overwrite:
        assert import_adapter(folder)[0].identity.config.r == 2


@pytest.mark.parametrize("moment", ["folder", "new"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_costs_no_earlier_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, when: str
) -> None:
    """Around each of the two renames: there is the earlier one or the new one, whole."""
    folder = tmp_path / "folder"
    export_adapter(small_entry(r=2), folder, namespace=NAMESPACE)
    rename, stopped = Path.rename, []

    def stop(path: Path, to: Path) -> Path:
        interrupts = path.name == moment and not stopped
        if interrupts and when == "before":
            stopped.append(path)
            raise KeyboardInterrupt
        renamed = rename(path, to)
        if interrupts:
            stopped.append(path)
            raise KeyboardInterrupt
        return renamed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            export_adapter(small_entry(r=3), folder, namespace=NAMESPACE, overwrite=True)
    assert stopped
    finished = (moment, when) == ("new", "after")
    assert import_adapter(folder)[0].identity.config.r == (3 if finished else 2)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_in_the_place_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "peft").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(StoreError):
            export_adapter(
                small_entry(), tmp_path / "peft", namespace=NAMESPACE, overwrite=overwrite
            )
    assert (tmp_path / "peft").read_text() == "precious"


def test_there_has_to_be_something_to_export(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to export"):
        export_adapter(make_entry({}, decision="kept_base"), tmp_path / "x", namespace=NAMESPACE)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("entry", "options"),
    [
        (small_entry(), {"rank": 1}),
        (small_entry(parametrization="full"), {"rank": 0}),
        (small_entry(parametrization="full"), {"rank": 5}),
        (small_entry(), {"alora_invocation_tokens": []}),
        (small_entry(), {"alora_invocation_tokens": [3, -1]}),
        (small_entry(), {"alora_invocation_tokens": [True]}),
    ],
)
def test_wrong_options_are_refused(
    entry: StoredAdapter, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        export_adapter(entry, tmp_path / "x", namespace=NAMESPACE, **options)
    assert not list(tmp_path.iterdir())


def test_a_lora_takes_its_own_rank(tmp_path: Path) -> None:
    assert export_adapter(small_entry(), tmp_path / "x", namespace=NAMESPACE, rank=2).rank == 2


def damaged_entries() -> Iterator[StoredAdapter]:
    lora, full = small_entry(), small_entry(parametrization="full")
    first = next(iter(lora.weights))
    delta = next(iter(full.weights))
    for weights in (
        {first: lora.weights[first]},
        {**lora.weights, first: torch.zeros(3, 4)},
        {**lora.weights, first: torch.full((2, 4), torch.nan)},
        {**lora.weights, "base_model.model.lm_head.weight": torch.zeros(2, 2)},
        dict(full.weights),
    ):
        yield make_entry(weights, r=2)
    for ranges in (((0, 5),), ((0, 3), (6, 10)), ((5, 11),)):
        rows = {delta: QueryRows(out_features=10, ranges=ranges)}
        yield make_entry(dict(full.weights), rows, parametrization="full")
    yield make_entry(dict(lora.weights), parametrization="full")


@pytest.mark.parametrize("entry", list(damaged_entries()))
def test_a_damaged_entry_is_not_exported(entry: StoredAdapter, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        export_adapter(entry, tmp_path / "x", namespace=NAMESPACE)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good export."""
    export_adapter(small_entry(), tmp_path / "peft", namespace=NAMESPACE)
    return tmp_path / "peft"


def assert_same(found: StoredAdapter, entry: StoredAdapter) -> None:
    assert found.weights.keys() == entry.weights.keys()
    assert all(torch.equal(found.weights[name], w) for name, w in entry.weights.items())
    for name in ("identity", "report", "base_model", "query_rows", "created"):
        assert getattr(found, name) == getattr(entry, name)


@pytest.mark.parametrize("namespace", [NAMESPACE, SEALED, Namespace("other")])
def test_an_import_is_what_was_exported(namespace: Namespace, tmp_path: Path) -> None:
    entry = small_entry()
    report = export_adapter(entry, tmp_path / "peft", namespace=namespace)
    found, about = import_adapter(tmp_path / "peft")
    assert_same(found, entry)
    assert about.key == report.key == found.identity.key(namespace)
    assert about.sealed == (namespace.secret is not None)
    again = export_adapter(found, tmp_path / "again", namespace=namespace)
    assert again.key == report.key
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "peft" / name).read_bytes()


def test_an_approximation_is_not_imported(tmp_path: Path) -> None:
    entry = small_entry(parametrization="full")
    export_adapter(entry, tmp_path / "peft", namespace=NAMESPACE)
    with pytest.raises(StoreError, match="approximates"):
        import_adapter(tmp_path / "peft")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(StoreError, match=f"there is no {name}"):
        import_adapter(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["symlink", "folder", "pipe", "empty"])
def test_a_file_has_to_be_one(name: str, kind: str, folder: Path) -> None:
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes here")
    real = (folder / name).rename(folder / "real")
    if kind == "symlink":
        (folder / name).symlink_to(real)
    elif kind == "folder":
        (folder / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).touch()
    with pytest.raises(StoreError, match=name if kind != "empty" else None):
        import_adapter(folder)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "no such folder"),
        ("file", "it is no folder"),
        ("empty", f"there is no {ABOUT_FILE}"),
    ],
)
def test_a_folder_has_to_be_one(kind: str, problem: str, tmp_path: Path) -> None:
    place = tmp_path / "peft"
    if kind == "file":
        place.write_text("precious")
    elif kind == "empty":
        place.mkdir()
    with pytest.raises(StoreError, match=problem):
        import_adapter(place)


@pytest.mark.parametrize(("name", "limit"), [(ABOUT_FILE, 8 << 20), (WEIGHTS_FILE, 4 << 30)])
def test_a_huge_file_is_not_read(name: str, limit: int, folder: Path) -> None:
    os.truncate(folder / name, limit + 1)  # Sparse: it takes no space.
    with pytest.raises(StoreError, match="too large"):
        import_adapter(folder)


def rewrite(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one of the JSON files, as somebody would who knows how to compute the checksum."""
    said = json.loads((folder / name).read_text())
    change(said)
    if name == ABOUT_FILE:
        with contextlib.suppress(ValueError):  # Then it is refused for what it is.
            said["checksum"] = checksum_of(QTTTFolder.model_validate(said))
    (folder / name).write_text(json.dumps(said))


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "LOHA"},
        {"task_type": "SEQ_CLS"},
        {"r": 3},
        {"r": 0},
        {"r": "many"},
        {"lora_alpha": 5},
        {"target_modules": ["k_proj"]},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": []},
        {"target_modules": "q_proj"},
        {"alora_invocation_tokens": [3]},
        {"bias": "all"},
        {"lora_bias": True},
        {"use_dora": True},
        {"use_rslora": True},
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 1}},
        {"alpha_pattern": {"q_proj": 1}},
        {"layers_to_transform": [0]},
        {"layer_replication": [[0, 1]]},
        {"target_parameters": ["experts"]},
        {"trainable_token_indices": [1]},
        {"auto_mapping": {"base_model_class": "os"}},
        {"secret_words": "unpublished merger"},
    ],
    ids=str,
)
def test_a_config_that_says_more_or_else_is_refused(change: dict[str, Any], folder: Path) -> None:
    rewrite(folder, CONFIG_FILE, lambda said: said.update(change))
    with pytest.raises(StoreError) as refused:
        import_adapter(folder)
    assert "merger" not in str(refused.value)
    assert "secret_words" not in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        ("format", "other"),
        ("format_version", 2),
        ("key", "0" * 64),
        ("key", "../../etc/passwd"),
        ("namespace", "other"),
        ("namespace", "../up"),
        ("identity", "base", "e" * 64),
        ("identity", "prefix", "e" * 64),
        ("identity", "config", "seed", 1),
        ("identity", "config", "r", 3),
        ("identity", "config", "parametrization", "full"),
        ("identity", "config", "unpublished merger", 1),
        ("identity", "config", "learning_rate", 10**400),
        ("report", "decision", "kept_base"),
        ("report", "parametrization", "full"),
        ("report", "drift", 10**400),
        ("report", "reasons", ["\ud800"]),
        ("document_tokens", 41),
        ("document_tokens", -1),
        ("requires_base_kv", False),
        ("exact", False),
        ("relative_error", 0.5),
        ("relative_errors", {"q_proj": 0.5}),
        ("query_rows", {"elsewhere": {"out_features": 9, "ranges": [[0, 3]]}}),
        ("created", "yesterday"),
        ("sha256", "0" * 64),
        ("alora", {"invocation_tokens": [3]}),
        ("unpublished merger", 1),
    ],
    ids=str,
)
def test_a_qttt_json_that_says_more_or_else_is_refused(path: tuple[Any, ...], folder: Path) -> None:
    def change(said: dict[str, Any]) -> None:
        *parents, name, value = path
        for parent in parents:
            said = said[parent]
        assert name not in said or said[name] != value
        said[name] = value

    rewrite(folder, ABOUT_FILE, change)
    with pytest.raises(StoreError) as refused:
        import_adapter(folder)
    assert "checksum" not in str(refused.value)
    assert "merger" not in str(refused.value)


@pytest.mark.parametrize("name", [CONFIG_FILE, ABOUT_FILE])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 5_000,
        b"\xff\xfe",
        b'{"\\ud800": 1}',
        b'{"r": 2, "r": 2}',
    ],
    ids=lambda text: repr(text[:8]),
)
def test_what_is_no_json_of_ours_is_refused(name: str, text: bytes, folder: Path) -> None:
    (folder / name).write_bytes(text)
    with pytest.raises(StoreError, match=name):
        import_adapter(folder)


def test_the_same_name_twice_is_refused(folder: Path) -> None:
    for name in (CONFIG_FILE, ABOUT_FILE):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("{", '{"r": 2, "r": 2, ', 1))
        with pytest.raises(StoreError, match="twice"):
            import_adapter(folder)
        (folder / name).write_text(text)


def replace_weights(folder: Path, data: bytes) -> None:
    """Exchange the weights, and say so in qttt.json."""
    (folder / WEIGHTS_FILE).write_bytes(data)
    rewrite(folder, ABOUT_FILE, lambda said: said.update(sha256=hashlib.sha256(data).hexdigest()))


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def odd_weights() -> Iterator[tuple[str, bytes]]:
    good = dict(small_entry().weights)
    first = next(iter(good))
    yield "one factor less", save({n: w for n, w in good.items() if n != first})
    yield "another module", save({**good, first.replace("q_proj", "k_proj"): torch.ones(2, 4)})
    more = {n.replace("q_proj", "k_proj"): w.clone() for n, w in good.items()}
    yield "more modules", save({**good, **more})
    yield "a bias", save({**good, first.replace("lora_A.weight", "lora_B.bias"): torch.ones(6)})
    yield "a saved module", save({**good, "base_model.model.lm_head.weight": torch.ones(2, 2)})
    yield "no PEFT name", save({n.removeprefix("base_model."): w for n, w in good.items()})
    yield "an odd name", save({n.replace("layers", "../layers"): w for n, w in good.items()})
    yield "rank 3", save(dict(small_entry(r=3).weights))
    yield "one factor of rank 3", save({**good, first: torch.zeros(3, 4)})
    yield "a vector", save({**good, first: torch.zeros(8)})
    yield "an empty factor", save({**good, first: torch.zeros(2, 0)})
    yield "half precision", save({n: w.bfloat16() for n, w in good.items()})
    yield "double precision", save({n: w.double() for n, w in good.items()})
    yield "not a number", save({**good, first: torch.full((2, 4), torch.nan)})
    yield "infinite", save({**good, first: torch.full((2, 4), torch.inf)})
    yield "nothing", save({})
    yield "no file", b""
    yield "text", b"precious" * 9
    yield "a header that is not there", (2**63).to_bytes(8, "little") + b"{}"
    yield "a header larger than ours", (9 << 20).to_bytes(8, "little") + b" " * (9 << 20)
    yield "a deep header", raw(b'{"a":' * 200_000)
    yield "a list", raw([1])
    yield "a number for a tensor", raw({first: 1})
    whole = save(good)
    start = 8 + int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8:start]), whole[start:]
    for title, changes in {
        "a huge shape": {"shape": [2**40, 2**20]},
        "a huge tensor": {"shape": [2**40, 4], "data_offsets": [0, 2**44]},
        "a shape that wraps around": {"shape": [2**62, 4], "data_offsets": [0, 0]},
        "a million sizes": {"shape": [2**31] * 600_000},
        "a negative size": {"shape": [-2, -4]},
        "a size that is no number": {"shape": [True, 8]},
        "another place": {"data_offsets": [32, 64]},
        "a reversed place": {"data_offsets": [32, 0]},
        "another type": {"dtype": "F16"},
    }.items():
        yield title, raw({**header, first: {**header[first], **changes}}, data)
    yield "bytes behind", whole + b"\0" * 8
    yield "bytes missing", whole[:-4]


ODD_WEIGHTS = dict(odd_weights())


@pytest.mark.parametrize("title", ODD_WEIGHTS)
def test_weights_that_are_no_such_lora_are_refused(title: str, folder: Path) -> None:
    replace_weights(folder, ODD_WEIGHTS[title])
    with pytest.raises(StoreError) as refused:
        import_adapter(folder)
    assert "checksum" not in str(refused.value)
    assert "is not the one" not in str(refused.value)


def test_other_weights_of_the_same_shape_are_refused(folder: Path) -> None:
    weights = {name: w + 1 for name, w in small_entry().weights.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(weights))
    with pytest.raises(StoreError, match="is not the one"):
        import_adapter(folder)


def test_the_base_models_name_may_be_edited_for_a_server(folder: Path) -> None:
    """vLLM compares it with its own, letter by letter; ours is in qttt.json."""
    rewrite(folder, CONFIG_FILE, lambda said: said.update(base_model_name_or_path="/mnt/model"))
    assert import_adapter(folder)[0].base_model == "./model"


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Path, dict[str, bytes]]]:
    """One export for many examples, and the bytes of its files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "peft")
        export_adapter(small_entry(), folder, namespace=NAMESPACE, alora_invocation_tokens=[7, 8])
        yield folder, {name: (folder / name).read_bytes() for name in FILES}


@settings(max_examples=400)
@given(name=st.sampled_from(FILES), place=st.integers(0), bits=st.integers(1, 255))
def test_any_other_byte_is_refused_or_means_the_same(
    kept: tuple[Path, dict[str, bytes]], name: str, place: int, bits: int
) -> None:
    folder, contents = kept
    damaged = bytearray(contents[name])
    damaged[place % len(damaged)] ^= bits
    assert_refused_or_same(folder, name, bytes(damaged), contents[name])


@settings(max_examples=100)
@given(
    name=st.sampled_from(FILES),
    begin=st.integers(0),
    n=st.integers(0, 40),
    new=st.binary(max_size=9),
)
def test_any_other_piece_is_refused_or_means_the_same(
    kept: tuple[Path, dict[str, bytes]], name: str, begin: int, n: int, new: bytes
) -> None:
    folder, contents = kept
    begin %= len(contents[name]) + 1
    damaged = contents[name][:begin] + new + contents[name][begin + n :]
    assert_refused_or_same(folder, name, damaged, contents[name])


def assert_refused_or_same(folder: Path, name: str, damaged: bytes, good: bytes) -> None:
    (folder / name).write_bytes(damaged)
    try:
        found, about = import_adapter(folder)
    except StoreError:
        assert damaged != good
    else:
        assert_same(found, small_entry())
        assert about.key == small_entry().identity.key(NAMESPACE)
        assert name != WEIGHTS_FILE or damaged == good
    finally:
        (folder / name).write_bytes(good)
