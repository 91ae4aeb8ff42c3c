"""The adapter store: whole entries or none, private, and never a caller's path."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import ttt_core
from ttt_core import AdaptationConfig, AdaptationReport, AdapterStore, StoreError, TTTEngine
from ttt_core.report import LearningRateTrial, ProbeResult
from ttt_core.store import StoredAdapter

KEY, OTHER = "ab" * 32, "cd" * 32


def make_report(*, after: float = 1.5) -> AdaptationReport:
    return AdaptationReport(
        decision="adapted",
        reasons=("held-out gain +0.1",),
        parametrization="lora",
        supervision="cloze",
        document_tokens=1000,
        losses=(1 / 3, 0.1),
        learning_rate=1e-3,
        trials=(LearningRateTrial(learning_rate=1e-2, steps=8, gain=None),),
        probe=ProbeResult(
            clozes=96,
            before=2.0,
            after=after,
            right_before=0.5,
            right_after=0.75,
            right_p_value=0.01,
            gain=0.5,
            z=3.0,
            p_value=0.001,
        ),
        drift=0.2,
        seconds={"train": 0.123},
    )


def make_entry(*, size: int = 4) -> StoredAdapter:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "a.lora_A.weight": torch.randn(2, size, generator=generator),
        "a.lora_B.weight": torch.randn(size, 2, generator=generator).T,  # Not contiguous.
    }
    return StoredAdapter({name: w.contiguous() for name, w in weights.items()}, make_report())


def same(left: StoredAdapter | None, right: StoredAdapter) -> bool:
    return (
        left is not None
        and left.report == right.report
        and left.weights.keys() == right.weights.keys()
        and all(torch.equal(left.weights[name], right.weights[name]) for name in right.weights)
    )


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


def put(store: AdapterStore, key: str = KEY) -> Path:
    """Write an entry and return its file."""
    store.put(key, make_entry())
    (path,) = store.path.rglob(f"{key}.safetensors")
    return path


def test_round_trip(store: AdapterStore) -> None:
    entry = make_entry()
    assert store.get(KEY) is None
    store.put(KEY, entry)
    assert same(store.get(KEY), entry)
    assert same(AdapterStore(store.path).get(KEY), entry)
    assert store.get(OTHER) is None


def test_kept_base_has_no_weights_but_a_report(store: AdapterStore) -> None:
    entry = StoredAdapter({}, make_report())
    store.put(KEY, entry)
    assert same(store.get(KEY), entry)


@pytest.mark.parametrize("after", [math.inf, math.nan])
def test_losses_that_are_not_finite_can_be_stored(store: AdapterStore, after: float) -> None:
    """A run that diverged is kept as `kept_base`; losing it would train again every time."""
    store.put(KEY, StoredAdapter({}, make_report(after=after)))
    found = store.get(KEY)
    assert found is not None
    assert found.report.probe is not None
    assert str(found.report.probe.after) == str(after)


def test_last_writer_wins(store: AdapterStore) -> None:
    store.put(KEY, StoredAdapter({}, make_report()))
    store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())
    assert len(list(store.path.rglob("*.*"))) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_can_look_in(store: AdapterStore) -> None:
    path, umask = put(store), os.umask(0)
    os.umask(umask)
    folders = [store.path, *(p for p in store.path.rglob("*") if p.is_dir())]
    assert path.stat().st_mode & 0o777 == 0o600
    assert {str(f.relative_to(store.path)): oct(f.stat().st_mode & 0o777) for f in folders} == {
        str(f.relative_to(store.path)): "0o700" for f in folders
    }


def check_damaged(store: AdapterStore, path: Path) -> None:
    """A damaged entry counts as none, is set aside, and can be written again."""
    assert store.get(KEY) is None
    assert not path.exists()
    assert path.with_suffix(".damaged").exists()
    store.put(KEY, make_entry())
    assert same(store.get(KEY), make_entry())


@pytest.mark.parametrize("size", [0, 4, 8, 100, -1])
def test_truncated_file(store: AdapterStore, size: int) -> None:
    path = put(store)
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    check_damaged(store, path)


def test_flipped_bit_in_the_weights(store: AdapterStore) -> None:
    path = put(store)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    check_damaged(store, path)


def test_entry_of_another_key(store: AdapterStore) -> None:
    path, other = put(store), put(store, OTHER)
    other.replace(path)
    check_damaged(store, path)


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"report": "{}", "key": KEY, "checksum": "0"}],
    ids=["none", "foreign", "forged"],
)
def test_foreign_safetensors(store: AdapterStore, metadata: dict[str, str] | None) -> None:
    path = put(store)
    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, path, metadata)
    check_damaged(store, path)


def test_weights_in_a_type_that_we_never_write(store: AdapterStore) -> None:
    """A true report and key around weights that numpy does not know."""
    path = put(store)
    metadata = {"report": make_report().model_dump_json(), "key": KEY, "checksum": "0"}
    save_file({"w": torch.ones(3, dtype=torch.bfloat16)}, path, metadata)
    check_damaged(store, path)


def test_something_else_in_its_place(store: AdapterStore) -> None:
    path = put(store)
    path.write_text("<html>not found</html>")
    check_damaged(store, path)


@cache
def file_bytes(folder: Path) -> bytes:
    return put(AdapterStore(folder)).read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_gives_the_entry_or_nothing(
    store: AdapterStore, data: st.DataObject
) -> None:
    """Never an error, never other weights or another report."""
    path = store.path / "v1" / KEY[:2] / f"{KEY}.safetensors"
    changed = bytearray(file_bytes(store.path))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    found = store.get(KEY)
    assert found is None or same(found, make_entry())


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = AdapterStore(tmp_path / "file" / "store")
    assert store.get(KEY) is None
    with pytest.raises(StoreError, match="TTT_HOME"):
        store.put(KEY, make_entry())


def test_full_disk_leaves_nothing_behind(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(store)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        store.put(KEY, StoredAdapter({}, make_report()))
    assert [p for p in store.path.rglob("*") if p.is_file()] == [path]
    assert path.read_bytes() == before


def test_unreadable_file_is_an_error_and_not_a_miss(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every process would train again, and fail to write what it learned."""
    path = put(store)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("safetensors.safe_open", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        store.get(KEY)
    assert path.exists()


CRASHING = """
import os, random, signal, sys
import torch
from ttt_core import AdaptationReport, AdapterStore
from ttt_core.store import StoredAdapter

store, rng = AdapterStore(sys.argv[1]), random.Random(0)
entry = StoredAdapter(
    {"w": torch.arange(200_000.0)}, AdaptationReport.model_validate_json(sys.argv[2])
)
while len(list(store.path.rglob("*.tmp"))) < 5:  # Until five have died in the middle.
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(10**9):
            store.put(f"{number % 3:064x}", entry)
            os.write(tell, b".")
    for _ in range(3):
        os.read(told, 1)
    for _ in range(rng.randrange(200_000)):  # Somewhere in the middle of the next one.
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(told), os.close(tell)
print("done")
"""


@pytest.mark.skipif(os.name == "nt", reason="fork and SIGKILL")
def test_killed_writers_leave_whole_entries_only(store: AdapterStore) -> None:
    """Writers die by SIGKILL in the middle of a put, again and again, while this process reads."""
    report = make_report()
    expected = StoredAdapter({"w": torch.arange(200_000.0)}, report)
    core = Path(ttt_core.__file__).parents[1]
    writer = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(store.path), report.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(core)},
        stdout=subprocess.PIPE,
        text=True,
    )
    keys, n_read = [f"{n:064x}" for n in range(3)], 0
    while writer.poll() is None:
        for key in keys:
            found = store.get(key)
            n_read += found is not None
            assert found is None or same(found, expected)
    assert writer.communicate()[0] == "done\n"
    assert n_read > 0
    assert all(same(store.get(key), expected) for key in keys)
    assert not list(store.path.rglob("*.damaged"))


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", "A" * 64, "ab" * 31, "ab" * 33, "/" + "a" * 63, "a" * 64 + "\n"]
)
def test_key_that_is_no_hash_is_refused(store: AdapterStore, key: str) -> None:
    for use in (store.get, store.set_aside, lambda k: store.put(k, make_entry())):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            use(key)
    assert not store.path.exists()


def test_no_document_text_on_disk(engine: TTTEngine, tmp_path: Path) -> None:
    lines = "\n".join(f"Rosebud {n * n} is secret" for n in range(5))
    config = AdaptationConfig(gate=False, steps=1, learning_rate=1e-3, r=2)
    adapted = engine.adapt(lines, system="Citizen", config=config)
    assert adapted.report is not None
    assert adapted.report.decision == "adapted"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    for word in ("Rosebud", "secret", "Citizen"):
        assert word.encode() not in files[0].read_bytes()
        assert word not in str(files[0].relative_to(tmp_path))


def test_default_folder_follows_ttt_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TTT_HOME", str(tmp_path / "elsewhere"))
    assert AdapterStore().path == tmp_path / "elsewhere" / "adapters"
    monkeypatch.delenv("TTT_HOME")
    assert "context-ttt" in str(AdapterStore().path)
