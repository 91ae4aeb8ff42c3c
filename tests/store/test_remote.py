"""The remote: never trusted, never waited for longer than was said, and nothing is lost by it.

Against moto's S3 server on the loopback device, a folder, and a file system of fsspec's that does
what a script says: fail, hang, lie.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch
from fsspec.spec import AbstractFileSystem

import ttt_core
from tests.store.samples import posix_only
from ttt_core import (
    AdaptationConfig,
    AdaptationReport,
    AdapterStore,
    ConfigError,
    StoreError,
    files,
)
from ttt_core.identity import AdapterIdentity
from ttt_core.namespace import Namespace
from ttt_core.store import StoredAdapter, patience, remote
from ttt_core.store.format import FormatError
from ttt_core.store.outbox import Outbox, Outboxes
from ttt_core.store.remote import RemoteFolder
from ttt_core.store.second_level import Mode, SecondLevel

FOLDER, KEY = "0f" * 16, "ab" * 32
OTHER = "cd" * 32
NAME = f"v2/{FOLDER}/ab/{KEY}.safetensors"
OTHER_NAME = f"v2/{FOLDER}/cd/{OTHER}.safetensors"
MANY = 1 << 20
SOON = 30.0
"""Seconds after which a test that waits for something has failed."""

Fault = Callable[[str, str], None]


def _works(operation: str, path: str) -> None:
    pass


@dataclass
class Script:
    """A remote that several machines share, and what it does when it is asked.

    Attributes:
        objects: What it holds, by path.
        fault: Called with the operation and the path before anything is done; raises, or waits.
        calls: All operations so far.
        written: Set by every write.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    fault: Fault = _works
    calls: list[str] = field(default_factory=list)
    written: threading.Event = field(default_factory=threading.Event)

    def folder(self, url: str = "scripted://box", **options: Any) -> RemoteFolder:
        return RemoteFolder(url, storage_options={"script": self}, **options)

    def held(self, name: str = NAME) -> bytes | None:
        return self.objects.get(f"box/{name}")


class ScriptedFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """An object store as `Script` says."""

    protocol = "scripted"

    def __init__(self, script: Script, **options: Any) -> None:
        super().__init__(**options)
        self.script = script

    def _do(self, operation: str, path: str) -> str:
        path = self._strip_protocol(path)
        self.script.calls.append(operation)
        self.script.fault(operation, path)
        return path

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        path = self._do("info", path)
        if path not in self.script.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.script.objects[path]), "type": "file"}

    def cat_file(self, path: str, **options: Any) -> bytes:
        return self.script.objects[self._do("read", path)]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        path = self._do("write", path)
        if mode == "create" and path in self.script.objects:
            raise FileExistsError(path)
        self._keep(path, value)

    def _keep(self, path: str, value: bytes) -> None:
        self.script.objects[path] = bytes(value)
        self.script.written.set()


class ForgetfulFileSystem(ScriptedFileSystem):
    """Takes a condition, and writes all the same."""

    protocol = "forgetful"

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._keep(self._do("write", path), value)


class OldFileSystem(ScriptedFileSystem):
    """Knows the argument, but not the value."""

    protocol = "old"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        path = self._do("write", path)
        if mode != "overwrite":
            raise NotImplementedError
        self._keep(path, value)


class UnconditionalServer(ScriptedFileSystem):
    """An S3 server without conditional writes."""

    protocol = "unconditional"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        path = self._do("write", path)
        if mode != "overwrite":
            raise OSError(errno.ENOSYS, "NotImplemented")
        self._keep(path, value)


class TerseServer(ScriptedFileSystem):
    """An S3 server that does not say which condition failed."""

    protocol = "terse"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
        try:
            super().pipe_file(path, value, mode)
        except FileExistsError:
            cause = RuntimeError()
            cause.response = {"ResponseMetadata": {"HTTPStatusCode": 412}}  # type: ignore[attr-defined]
            raise OSError(errno.EINVAL, "PreconditionFailed") from cause


for _file_system in (
    ScriptedFileSystem,
    ForgetfulFileSystem,
    OldFileSystem,
    UnconditionalServer,
    TerseServer,
):
    fsspec.register_implementation(_file_system.protocol, _file_system, clobber=True)


class NoCredentialsError(Exception):
    """As botocore has one: no OSError."""


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(autouse=True)
def _no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BACK_OFF", 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The remote's clock, to be turned by hand."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Whoever waits for it hangs until the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ttt-remote"):
            thread.join(SOON)


def waits_for(gate: threading.Event, operation: str = "") -> Fault:
    def fault(called: str, path: str) -> None:
        if called.startswith(operation):
            gate.wait(SOON)

    return fault


def raises(error: BaseException, *, on: str = "", path: str = "", times: int = 1 << 30) -> Fault:
    left = [times]

    def fault(operation: str, called: str) -> None:
        if operation.startswith(on) and path in called and left[0]:
            left[0] -= 1
            raise error

    return fault


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


# --- S3 and a folder ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A real S3 API, on this machine only."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def s3_options(endpoint: str) -> dict[str, Any]:
    return {
        "key": "test",
        "secret": "test",
        "client_kwargs": {"endpoint_url": endpoint, "region_name": "eu-west-1"},
    }


@pytest.fixture
def bucket(s3_endpoint: str, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{abs(hash(request.node.nodeid)):x}"
    fsspec.filesystem("s3", **s3_options(s3_endpoint)).mkdir(name)
    return name


loopback = pytest.mark.allow_hosts(["127.0.0.1"])

MakeRemote = Callable[[], RemoteFolder]


@pytest.fixture(params=[pytest.param("s3", marks=loopback), "file"])
def make_remote(request: pytest.FixtureRequest, tmp_path: Path) -> MakeRemote:
    """Returns what each machine has for the same remote."""
    if request.param == "file":
        return lambda: RemoteFolder(f"file://{tmp_path}/remote")
    options = s3_options(request.getfixturevalue("s3_endpoint"))
    bucket = request.getfixturevalue("bucket")
    return lambda: RemoteFolder(f"s3://{bucket}/pre/fix/", storage_options=options)


def test_what_is_put_is_got_by_another_machine(make_remote: MakeRemote) -> None:
    assert make_remote().get(FOLDER, KEY, max_bytes=MANY) is None
    assert make_remote().put(FOLDER, KEY, b"weights")
    assert make_remote().get(FOLDER, KEY, max_bytes=MANY) == b"weights"
    assert make_remote().get(FOLDER, OTHER, max_bytes=MANY) is None


def test_the_first_writer_wins_and_nobody_fails(make_remote: MakeRemote) -> None:
    start, done = threading.Barrier(4), {}

    def write(data: bytes) -> None:
        folder = make_remote()
        start.wait(SOON)
        done[data] = folder.put(FOLDER, KEY, data)

    threads = [threading.Thread(target=write, args=(b"%d" % i * 1000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    first = make_remote().get(FOLDER, KEY, max_bytes=MANY)
    assert set(done.values()) == {True}
    assert len(done) == 4
    assert first in done
    assert make_remote().put(FOLDER, KEY, b"later")
    assert make_remote().get(FOLDER, KEY, max_bytes=MANY) == first


def test_replacing_heals(make_remote: MakeRemote) -> None:
    make_remote().put(FOLDER, KEY, b"torn")
    assert make_remote().replace(FOLDER, KEY, b"whole")
    assert make_remote().get(FOLDER, KEY, max_bytes=MANY) == b"whole"


def test_a_larger_object_is_not_read(make_remote: MakeRemote) -> None:
    make_remote().put(FOLDER, KEY, b"12345")
    assert make_remote().get(FOLDER, KEY, max_bytes=5) == b"12345"
    assert make_remote().get(FOLDER, KEY, max_bytes=4) is None


@loopback
def test_one_object_for_each_adapter(s3_endpoint: str, bucket: str) -> None:
    options = s3_options(s3_endpoint)
    folder = RemoteFolder(f"s3://{bucket}/prefix", storage_options=options)
    folder.put(FOLDER, KEY, b"1")
    folder.put(FOLDER, OTHER, b"2")
    found = fsspec.filesystem("s3", **options).find(bucket)
    assert sorted(found) == [f"{bucket}/prefix/{NAME}", f"{bucket}/prefix/{OTHER_NAME}"]


@loopback
def test_a_bucket_that_is_not_there_is_not_made(
    s3_endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = s3_options(s3_endpoint)
    folder = RemoteFolder("s3://no-such-bucket/prefix", storage_options=options)
    assert not folder.put(FOLDER, KEY, b"1")
    assert not fsspec.filesystem("s3", **options).exists("no-such-bucket")
    (warning,) = warnings_of(caplog)
    assert "cannot write to the remote store s3://no-such-bucket/prefix" in warning


@loopback
def test_a_server_that_does_not_answer_is_down(caplog: pytest.LogCaptureFixture) -> None:
    options = s3_options("http://127.0.0.1:9")  # Nobody listens to "discard" any more.
    folder = RemoteFolder("s3://bucket/prefix", storage_options=options)
    start = time.monotonic()
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert not folder.put(FOLDER, KEY, b"1")
    assert time.monotonic() - start < SOON
    assert len(warnings_of(caplog)) == 1


FORK = """
import json, os, sys
from ttt_core.store.remote import RemoteFolder
remote = RemoteFolder(sys.argv[1], storage_options=json.loads(sys.argv[2]), attempts=1)
assert remote.get(sys.argv[3], sys.argv[4], max_bytes=100) == b"weights"
child = os.fork()
if not child:
    os._exit(remote.get(sys.argv[3], sys.argv[4], max_bytes=100) != b"weights")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@loopback
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_connections_of_its_own(s3_endpoint: str, bucket: str) -> None:
    import json

    options, url = s3_options(s3_endpoint), f"s3://{bucket}/prefix"
    RemoteFolder(url, storage_options=options).put(FOLDER, KEY, b"weights")
    assert run(FORK, url, json.dumps(options), FOLDER, KEY).returncode == 0


def run(program: str, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(ttt_core.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_a_folder_shows_no_half_written_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RemoteFolder(f"file://{tmp_path}/remote", attempts=1)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        assert not folder.put(FOLDER, KEY, b"weights")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    folder.try_again()
    assert folder.put(FOLDER, KEY, b"weights")
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path == tmp_path / "remote" / NAME
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("write", ["put", "replace"])
def test_what_killed_writers_left_in_a_folder_is_swept(tmp_path: Path, write: str) -> None:
    folder = RemoteFolder(f"file://{tmp_path}/remote")
    shard = (tmp_path / "remote" / NAME).parent
    (shard / "tmpabcd.tmp").mkdir(parents=True)
    for name in ("old.tmp", "new.tmp", "mine.safetensors", "tmpabcd.tmp/half"):
        (shard / name).write_bytes(b"half")
    then = time.time() - 7200
    for name in ("old.tmp", "mine.safetensors", "tmpabcd.tmp"):
        os.utime(shard / name, (then, then))
    assert getattr(folder, write)(FOLDER, KEY, b"weights")
    names = {path.name for path in shard.iterdir()}
    assert names == {Path(NAME).name, "new.tmp", "mine.safetensors"}


def test_a_share_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    folder = RemoteFolder(f"file://{tmp_path}/mnt/remote")
    assert not folder.put(FOLDER, KEY, b"weights")
    assert not (tmp_path / "mnt").exists()


def test_folders_are_made_where_the_protocol_has_them() -> None:
    folder = RemoteFolder("memory://shelf/below")
    fsspec.filesystem("memory").makedirs("/shelf/below")
    assert folder.put(FOLDER, KEY, b"weights")
    assert folder.get(FOLDER, KEY, max_bytes=MANY) == b"weights"
    fsspec.filesystem("memory").rm("/shelf", recursive=True)


# --- Names and secrets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        ("..", KEY),
        (FOLDER, "../" * 21 + "x"),
        (FOLDER.upper(), KEY),
        (FOLDER, KEY + "\n"),
        (f"{FOLDER}/", KEY),
        ("", ""),
    ],
)
def test_only_digests_become_paths(script: Script, tmp_path: Path, folder: str, key: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal digits"):
        script.folder().get(folder, key, max_bytes=MANY)
    with pytest.raises(ValueError, match="hexadecimal digits"):
        script.folder().put(folder, key, b"")
    with pytest.raises(ValueError, match="hexadecimal digits"):
        script.folder().replace(folder, key, b"")
    assert not script.calls


def test_credentials_are_never_shown(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ttt_core")
    script.fault = raises(OSError("hunter2 is no password for scripted://me:hunter2@box"))
    folder = script.folder("scripted://me:hunter2@box/x?token=hunter2")
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    shown = "\n".join([*(record.getMessage() for record in caplog.records), repr(folder)])
    assert "hunter2" not in shown
    assert "box/x" in shown
    assert not [record for record in caplog.records if record.exc_info]
    for url in ("me:hunter2@box", "nobody-knows://me:hunter2@box"):
        with pytest.raises(ConfigError) as caught:
            RemoteFolder(url).get(FOLDER, KEY, max_bytes=MANY)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_remote_is_told_from_others_by_where_it_is() -> None:
    def digest(url: str, **options: Any) -> str:
        return RemoteFolder(url, storage_options=options).digest

    box = digest("s3://box/x")
    assert len(box) == 32
    assert int(box, 16)
    same = [digest("s3://box/x/"), digest("s3://box/x?token=1"), digest("s3://box/x", key="1")]
    assert set(same) == {box}
    assert digest("ftp://me:old@host/x") == digest("ftp://me:new@host/x")
    others = [
        digest("s3://box/y"),
        digest("s3://cox/x"),
        digest("gs://box/x"),
        digest("s3://box/x", endpoint_url="http://minio"),
        digest("s3://box/x", client_kwargs={"endpoint_url": "http://other"}),
        digest("abfs://box@account/x"),
        digest("abfs://cox@account/x"),
        digest("s3://box/x@y"),
        digest("s3://cox/x@y"),
        digest("ftp://me:a@host/x"),
        digest("ftp://you:a@host/x"),
    ]
    assert len({box, *others}) == 1 + len(others)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, script: Script) -> None:
    folder = script.folder()
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(ConfigError, match=r"pip install 'context-ttt\[remote\]'"):
        folder.put(FOLDER, KEY, b"")


@pytest.mark.parametrize("number", ["timeout", "attempts", "retry_after"])
def test_numbers_that_cannot_be_are_refused(number: str) -> None:
    with pytest.raises(ConfigError, match=number):
        RemoteFolder("s3://bucket", **{number: 0})


# --- Faults ------------------------------------------------------------------------------------


def test_what_passes_is_tried_again(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    script.fault = raises(ConnectionResetError(), times=2)
    assert script.folder().put(FOLDER, KEY, b"weights")
    assert script.calls == ["write"] * 3
    assert script.held() == b"weights"
    assert not caplog.records


def test_a_write_whose_answer_got_lost_is_a_success(script: Script) -> None:
    folder = script.folder()
    script.fault = raises(ConnectionResetError(), on="write", times=1)
    script.objects[f"box/{NAME}"] = b"weights"  # The first attempt's.
    assert folder.put(FOLDER, KEY, b"weights")


@pytest.mark.parametrize("error", [PermissionError(), NoCredentialsError(), TypeError()])
def test_what_does_not_pass_is_not_tried_again(
    script: Script, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    script.fault = raises(error)
    assert script.folder().get(FOLDER, KEY, max_bytes=MANY) is None
    assert script.calls == ["info"]
    (warning,) = warnings_of(caplog)
    assert warning.endswith(f"going on with the local one: {type(error).__name__}")


def test_a_remote_that_is_down_is_left_alone_and_told_of_once_an_outage(
    script: Script, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ttt_core")
    folder = script.folder(attempts=3, retry_after=60)
    script.fault = raises(OSError(errno.EBUSY, "SlowDown"))
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert len(script.calls) == 3
    assert folder.is_down

    clock.now += 59
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert not folder.put(FOLDER, KEY, b"weights")
    assert len(script.calls) == 3

    clock.now += 2
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert len(script.calls) == 4  # One attempt decides.

    script.fault = _works
    clock.now += 61
    assert len(warnings_of(caplog)) == 1
    assert folder.put(FOLDER, KEY, b"weights")
    assert folder.get(FOLDER, KEY, max_bytes=MANY) == b"weights"
    assert not folder.is_down
    script.fault = raises(OSError(errno.EBUSY, "SlowDown"))
    assert not folder.put(FOLDER, OTHER, b"weights")
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert len(warnings_of(caplog)) == 2
    assert any("is back" in record.getMessage() for record in caplog.records)


def test_who_may_only_read_still_reads(script: Script) -> None:
    script.objects[f"box/{NAME}"] = b"weights"
    script.fault = raises(PermissionError(), on="write")
    folder = script.folder()
    assert not folder.put(FOLDER, OTHER, b"weights")
    assert folder.get(FOLDER, KEY, max_bytes=MANY) == b"weights"
    assert folder.is_down


@pytest.mark.parametrize("error", [PermissionError(), OSError(errno.EMSGSIZE, "EntityTooLarge")])
def test_writes_that_are_refused_again_and_again_are_told_of_once(
    script: Script, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    script.objects[f"box/{NAME}"] = b"weights"
    script.fault = raises(error, on="write")
    folder = script.folder(attempts=1, retry_after=60)
    for _ in range(3):
        assert not folder.put(FOLDER, OTHER, b"weights")
        clock.now += 61
        assert folder.get(FOLDER, KEY, max_bytes=MANY) == b"weights"
    assert len(warnings_of(caplog)) == 1


def test_who_only_reads_is_told_of_each_outage(
    script: Script, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    folder = script.folder(attempts=1, retry_after=60)
    for outage in range(1, 4):
        script.fault = raises(ConnectionResetError())
        folder.get(FOLDER, KEY, max_bytes=MANY)
        script.fault = _works
        clock.now += 61
        folder.get(FOLDER, KEY, max_bytes=MANY)
        assert len(warnings_of(caplog)) == outage


def test_a_call_that_hangs_is_left_behind(
    script: Script, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    script.fault = waits_for(gate)
    folder = script.folder(timeout=0.05, attempts=1)
    start = time.monotonic()
    assert folder.get(FOLDER, KEY, max_bytes=MANY) is None
    assert time.monotonic() - start < SOON / 3
    (warning,) = warnings_of(caplog)
    assert warning.endswith("TimeoutError (ETIMEDOUT)")


def test_calls_that_hang_do_not_pile_up(script: Script, gate: threading.Event) -> None:
    script.fault = waits_for(gate)
    folder = script.folder(timeout=0.01, attempts=1)
    for _ in range(20):
        folder.try_again()
        assert not folder.put(FOLDER, KEY, b"weights")
    assert len(script.calls) == patience._MOST_HUNG
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "ttt-remote-call":
            thread.join(SOON)
    folder.try_again()
    assert folder.put(FOLDER, KEY, b"weights")


HANGS = """
import sys, time, fsspec
from fsspec.implementations.memory import MemoryFileSystem
from ttt_core.store.remote import RemoteFolder
class Hanging(MemoryFileSystem):
    protocol = "hanging"
    def info(self, path, **options):
        time.sleep(3600)
fsspec.register_implementation("hanging", Hanging)
remote = RemoteFolder("hanging://x", timeout=0.1, attempts=2)
print(remote.get(sys.argv[1], sys.argv[2], max_bytes=100))
"""


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    done = run(HANGS, FOLDER, KEY)
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert done.stderr.count("TimeoutError") == 1


@pytest.mark.parametrize("protocol", ["forgetful", "old", "unconditional", "terse"])
def test_the_first_writer_wins_without_conditional_writes(script: Script, protocol: str) -> None:
    folder = script.folder(f"{protocol}://box")
    assert folder.put(FOLDER, KEY, b"first")
    assert folder.put(FOLDER, KEY, b"second")
    assert script.held() == b"first"
    assert folder.replace(FOLDER, KEY, b"third")
    assert script.held() == b"third"


def test_whether_there_is_an_object_is_not_guessed(script: Script) -> None:
    script.objects[f"box/{NAME}"] = b"first"
    script.fault = raises(ConnectionResetError(), on="info")
    assert not script.folder("forgetful://box").put(FOLDER, KEY, b"second")
    assert script.held() == b"first"


# --- The second level --------------------------------------------------------------------------


@dataclass
class Machine:
    """A folder of files, marks for what is to be uploaded, and the remote behind both."""

    path: Path
    remote: RemoteFolder
    mode: Mode = "write-through"

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.path / "outbox")
        self.second = SecondLevel(self.remote, self.outbox, mode=self.mode, read=self.read)

    def read(self, folder: str, key: str) -> bytes | None:
        path = self.path / key
        return path.read_bytes() if path.exists() else None

    def put(self, key: str = KEY, data: bytes = b"weights") -> None:
        self.second.announce(FOLDER, key)
        (self.path / key).write_bytes(data)
        self.second.publish(FOLDER, key)

    def fetch(self, key: str = KEY) -> bytes | None:
        return self.second.fetch(FOLDER, key, self.check, max_bytes=MANY)

    @staticmethod
    def check(data: bytes) -> None:
        if not data.startswith(b"weights"):
            raise FormatError("its checksum is wrong")


@pytest.fixture
def make_machine(tmp_path: Path, script: Script) -> Callable[..., Machine]:
    def make(name: str = "a", mode: Mode = "write-through", **options: Any) -> Machine:
        (tmp_path / name).mkdir(exist_ok=True)
        return Machine(tmp_path / name, script.folder(**options), mode)

    return make


MakeMachine = Callable[..., Machine]


def uploads_behind() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ttt-remote-upload"]


def test_writing_through_uploads_at_once_and_without_a_thread(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine()
    machine.put()
    assert script.held() == b"weights"
    assert (FOLDER, KEY) not in machine.outbox
    assert not uploads_behind()
    assert make_machine("b").fetch() == b"weights"


def test_writing_behind_uploads_later(
    make_machine: MakeMachine, script: Script, gate: threading.Event
) -> None:
    machine = make_machine(mode="write-behind")
    script.fault = waits_for(gate, "write")
    machine.put()
    machine.put(OTHER)
    assert (FOLDER, KEY) in machine.outbox
    assert script.held() is None
    gate.set()
    (thread,) = uploads_behind()
    thread.join(SOON)
    assert not thread.is_alive()
    assert (script.held(), script.held(OTHER_NAME)) == (b"weights", b"weights")
    assert not machine.outbox.pending()
    machine.put("ef" * 32)
    machine.second.close(SOON)
    assert not machine.outbox.pending()


def test_closing_does_not_wait_for_ever(
    make_machine: MakeMachine, script: Script, gate: threading.Event
) -> None:
    machine = make_machine(mode="write-behind")
    script.fault = waits_for(gate, "write")
    machine.put()
    start = time.monotonic()
    machine.second.close(timeout=0.1)
    assert time.monotonic() - start < SOON / 3
    assert (FOLDER, KEY) in machine.outbox


def test_closing_gives_up_on_a_remote_that_is_down(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1, retry_after=3600)
    script.fault = raises(ConnectionResetError())
    machine.put()
    (thread,) = uploads_behind()
    machine.second.close(SOON)
    assert not thread.is_alive()
    assert (FOLDER, KEY) in machine.outbox


def test_a_dead_remote_loses_nothing(
    make_machine: MakeMachine, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    machine = make_machine(attempts=1, retry_after=3600)
    script.fault = raises(ConnectionResetError())
    machine.put()
    machine.put(OTHER)
    assert machine.second.drain() == 2
    assert len(warnings_of(caplog)) == 1
    machine.second.close(SOON)  # An upload behind the scenes may be under way, and fail only now.
    script.fault = _works
    assert machine.second.drain() == 0
    assert (script.held(), script.held(OTHER_NAME)) == (b"weights", b"weights")
    assert (FOLDER, KEY) not in machine.outbox
    machine.second.close(SOON)


def test_a_remote_that_comes_back_gets_what_it_missed(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1, retry_after=0.05)
    script.fault = raises(ConnectionResetError(), times=3)
    machine.put()
    assert script.written.wait(SOON)
    machine.second.close(SOON)
    assert not machine.outbox.pending()


def test_draining_ends_in_time(make_machine: MakeMachine, script: Script) -> None:
    machine = make_machine()
    machine.outbox.add(FOLDER, KEY)
    (machine.path / KEY).write_bytes(b"weights")
    assert machine.second.drain(timeout=0) == 1
    assert not script.calls


def test_two_who_drain_do_no_harm(make_machine: MakeMachine, script: Script) -> None:
    machines = [make_machine(), make_machine()]
    keys = [f"{i:064x}" for i in range(20)]
    for key in keys:
        machines[0].outbox.add(FOLDER, key)
        (machines[0].path / key).write_bytes(b"weights")
    start, left = threading.Barrier(2), []

    def drain(machine: Machine) -> None:
        start.wait(SOON)
        left.append(machine.second.drain())

    threads = [threading.Thread(target=drain, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert left == [0, 0]
    assert len(script.objects) == 20


def test_an_entry_that_the_remote_never_takes_does_not_keep_it_from_others(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1)
    script.fault = raises(OSError(errno.EMSGSIZE, "EntityTooLarge"), path=KEY)
    for key in (KEY, OTHER, "ef" * 32):
        machine.outbox.add(FOLDER, key)
        (machine.path / key).write_bytes(b"weights")
    for _ in range(100):  # In any order: each time, the odds are 2 to 1 that one more goes.
        if machine.second.drain() == 1:
            break
    assert machine.outbox.pending() == [(FOLDER, KEY)]


def test_a_mark_without_a_file_goes_when_whoever_set_it_must_be_dead(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine()
    machine.second.announce(FOLDER, KEY)
    assert machine.second.drain() == 0
    assert (FOLDER, KEY) in machine.outbox  # It may be about to be published.
    old = time.time() - 7200
    os.utime(machine.outbox.path / f"{FOLDER}-{KEY}", (old, old))
    assert machine.second.drain() == 0
    assert (FOLDER, KEY) not in machine.outbox
    assert not script.calls


def test_a_local_file_that_cannot_be_read_stays_marked(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine()
    machine.outbox.add(FOLDER, KEY)
    (machine.path / KEY).mkdir()
    assert machine.second.drain() == 1
    assert not script.calls


@pytest.mark.parametrize("lie", [b"another adapter's", b"", b"weigh"])
def test_wrong_bytes_are_refused_and_replaced(
    make_machine: MakeMachine, script: Script, caplog: pytest.LogCaptureFixture, lie: bytes
) -> None:
    script.objects[f"box/{NAME}"] = script.objects[f"box/{OTHER_NAME}"] = lie
    machine = make_machine()
    assert machine.fetch() is None
    assert machine.fetch() is None
    assert machine.fetch(OTHER) is None
    assert len(warnings_of(caplog)) == 1
    machine.put()
    assert script.held() == b"weights"
    assert make_machine("b").fetch() == b"weights"
    assert script.held(OTHER_NAME) == lie


def test_another_process_heals_what_this_one_could_not(
    make_machine: MakeMachine, script: Script
) -> None:
    script.objects[f"box/{NAME}"] = b"damaged"
    machine = make_machine(attempts=1, retry_after=3600)
    assert machine.fetch() is None
    script.fault = raises(ConnectionResetError())
    machine.put()
    machine.second.close(SOON)
    script.fault = _works
    assert make_machine().second.drain() == 0
    assert script.held() == b"weights"


def test_a_good_object_is_not_replaced(make_machine: MakeMachine, script: Script) -> None:
    make_machine("a").put(data=b"weights 1")
    machine = make_machine("b")
    machine.put(data=b"weights 2")
    assert script.held() == b"weights 1"
    assert (FOLDER, KEY) not in machine.outbox


def test_a_mode_that_is_none_is_refused(make_machine: MakeMachine) -> None:
    with pytest.raises(ConfigError, match="write-behind"):
        make_machine(mode="sometimes")


KILLED = """
import os, signal, sys
from pathlib import Path
from ttt_core.store.outbox import Outbox
from ttt_core.store.remote import RemoteFolder
from ttt_core.store.second_level import SecondLevel
path, folder, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
remote = RemoteFolder("file:///nowhere/at/all")
second = SecondLevel(remote, Outbox(path / "outbox"), read=lambda folder, key: None)
second.announce(folder, key)
(path / key).write_bytes(b"weights")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_uploaded_by_the_next(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine()
    assert run(KILLED, str(machine.path), FOLDER, KEY).returncode == -signal.SIGKILL
    assert (FOLDER, KEY) in machine.outbox
    machine.second.resume()
    machine.second.close(SOON)
    assert script.held() == b"weights"
    assert (FOLDER, KEY) not in machine.outbox


def test_what_is_used_after_it_was_closed_uploads_again(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1, retry_after=3600)
    script.fault = raises(ConnectionResetError())
    machine.put()
    machine.second.resume()
    machine.second.close(SOON)
    assert not uploads_behind()
    script.fault = _works
    machine.remote.try_again()
    machine.second.resume()
    assert script.written.wait(SOON)
    machine.second.close(SOON)
    assert not machine.outbox.pending()
    machine.put(OTHER)
    assert script.held(OTHER_NAME) == b"weights"


def test_who_drains_is_told_what_was_uploaded(make_machine: MakeMachine, script: Script) -> None:
    machine = make_machine(attempts=1)
    for key in (KEY, OTHER, "ef" * 32):
        machine.outbox.add(FOLDER, key)
    for key in (KEY, OTHER):
        (machine.path / key).write_bytes(b"weights")
    told: list[str] = []
    assert machine.second.drain(on_upload=told.append) == 0
    assert sorted(told) == [KEY, OTHER]


def break_outbox(path: Path) -> None:
    """Put a file where the marks' folder would be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize("mode", ["write-through", "write-behind"])
def test_what_cannot_be_marked_is_uploaded_all_the_same(
    make_machine: MakeMachine, script: Script, caplog: pytest.LogCaptureFixture, mode: Mode
) -> None:
    script.objects[f"box/{NAME}"] = b"damaged"
    machine = make_machine(mode=mode, attempts=1, retry_after=0.05)
    break_outbox(machine.outbox.path)
    assert machine.fetch() is None
    caplog.clear()
    machine.put()
    machine.put(OTHER)
    machine.second.close(SOON)
    assert (script.held(), script.held(OTHER_NAME)) == (b"weights", b"weights")
    (warning,) = warnings_of(caplog)
    assert f"cannot write to {machine.outbox.path}" in warning
    assert machine.second.drain() == 0


def test_what_cannot_be_marked_is_tried_again_while_the_process_lives(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1, retry_after=0.05)
    break_outbox(machine.outbox.path)
    script.fault = raises(ConnectionResetError(), times=3)
    machine.put()
    assert script.written.wait(SOON)
    machine.second.close(SOON)
    assert machine.second.drain() == 0


def test_a_mark_that_another_writer_took_back_is_set_again(
    make_machine: MakeMachine, script: Script
) -> None:
    machine = make_machine(attempts=1, retry_after=3600)
    script.fault = raises(ConnectionResetError())
    machine.second.announce(FOLDER, KEY)
    machine.second.withdraw(FOLDER, KEY)
    (machine.path / KEY).write_bytes(b"weights")
    machine.second.publish(FOLDER, KEY)
    assert (FOLDER, KEY) in machine.outbox
    machine.second.close(SOON)


def test_there_is_no_thread_where_nothing_is_left(make_machine: MakeMachine) -> None:
    machine = make_machine(mode="write-behind")
    machine.second.resume()
    assert not uploads_behind()
    machine.second.close()


FORK_BEHIND = """
import os, sys, threading
from pathlib import Path
from ttt_core.store.outbox import Outbox
from ttt_core.store.remote import RemoteFolder
from ttt_core.store.second_level import SecondLevel
path, folder, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
parent, reads, release = os.getpid(), threading.Event(), threading.Event()
def read(folder, key):
    if os.getpid() == parent:
        reads.set()
        release.wait()
    return b"weights"
remote = RemoteFolder(f"file://{path}/remote")
second = SecondLevel(remote, Outbox(path / "outbox"), mode="write-behind", read=read)
second.announce(folder, key)
second.publish(folder, key)
reads.wait()
child = os.fork()
if not child:
    second.publish(folder, key)
    second.close(60)
    os._exit(bool(Outbox(path / "outbox").pending()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_uploads_by_itself(tmp_path: Path) -> None:
    assert run(FORK_BEHIND, str(tmp_path), FOLDER, KEY).stdout == "0\n"
    assert (tmp_path / "remote" / NAME).read_bytes() == b"weights"


# --- The adapter store -------------------------------------------------------------------------


def make_entry(document: str = "a" * 64) -> tuple[str, StoredAdapter]:
    """Return an entry, and its key."""
    same = "0" * 64
    identity = AdapterIdentity(
        base=same, tokenizer=same, template=same, prefix=document, config=AdaptationConfig()
    )
    report = AdaptationReport(
        decision="adapted",
        reasons=(),
        parametrization="lora",
        supervision="cloze",
        document_tokens=1000,
    )
    weights = {"a.lora_A.weight": torch.arange(8.0).reshape(2, 4)}
    return identity.key(Namespace()), StoredAdapter(identity, report, weights)


def test_one_machine_adapts_and_another_has_it(make_remote: MakeRemote, tmp_path: Path) -> None:
    key, entry = make_entry()
    AdapterStore(tmp_path / "a", remote=make_remote()).put(key, entry)
    other = AdapterStore(tmp_path / "b", remote=make_remote())
    found = other.get(key)
    assert found is not None
    assert torch.equal(found.weights["a.lora_A.weight"], entry.weights["a.lora_A.weight"])
    assert found.report == entry.report
    assert AdapterStore(tmp_path / "b").get(key) is not None  # It is local from now on.


def test_a_store_with_a_dead_remote_works(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script.fault = raises(ConnectionResetError())
    dead = script.folder(attempts=1, retry_after=3600)
    store = AdapterStore(tmp_path / "a", remote=dead, max_bytes=0)
    entries = [make_entry(digit * 64) for digit in "abc"]
    for key, entry in entries:
        assert store.get(key) is None
        assert store.put(key, entry)
    assert len(warnings_of(caplog)) == 1
    # Over the limit, and still there: only this store has them.
    assert all(store.get(key) is not None for key, _ in entries)
    script.fault = _works
    assert store.drain() == 0
    store.close()
    other = AdapterStore(tmp_path / "b", remote=script.folder())
    assert all(other.get(key) is not None for key, _ in entries)
    store.prune(max_bytes=0)
    assert store.usage().files == 0


def test_a_store_refuses_another_objects_bytes_and_heals_the_remote(
    script: Script, tmp_path: Path
) -> None:
    (key, entry), (other_key, other) = make_entry("a" * 64), make_entry("b" * 64)
    first = AdapterStore(tmp_path / "a", remote=script.folder())
    first.put(key, entry)
    first.put(other_key, other)
    (wanted,) = [path for path in script.objects if key in path]
    (wrong,) = [path for path in script.objects if other_key in path]
    good = script.objects[wanted]
    for lie in (script.objects[wrong], good[:-1], good[:-1] + b"\xff", b""):
        script.objects[wanted] = lie
        store = AdapterStore(tmp_path / f"b{len(lie)}{lie[-1:].hex()}", remote=script.folder())
        assert store.get(key) is None
        assert store.usage().files == 0
        store.put(key, entry)
        assert script.objects[wanted] != lie
        assert AdapterStore(tmp_path / "a", remote=script.folder()).get(key) is not None
    fresh = AdapterStore(tmp_path / "c", remote=script.folder())
    assert fresh.get(key) is not None


def down(script: Script, url: str) -> RemoteFolder:
    """A remote that nothing reaches until `drain`; then it works."""
    script.fault = raises(ConnectionResetError())
    return script.folder(url, attempts=1, retry_after=3600)


def held_by(script: Script, box: str) -> list[str]:
    return [path for path in script.objects if path.startswith(f"{box}/")]


def test_each_remote_gets_what_was_written_for_it_and_nothing_else(tmp_path: Path) -> None:
    """Two tenants with buckets of their own share a folder."""
    theirs, ours = Script(), Script()
    (key, entry), path = make_entry(), tmp_path / "store"
    first = AdapterStore(path, remote=down(theirs, "scripted://theirs"), max_bytes=0)
    first.put(key, entry)
    first.close()
    second = AdapterStore(path, remote=ours.folder("scripted://ours"))
    assert second.get(key) is not None  # Also uploads what waits for it.
    assert second.drain() == 0
    second.close()
    assert AdapterStore(path).drain() == 0
    assert not ours.objects
    assert AdapterStore(path).pending_uploads() == 1
    AdapterStore(path).prune(max_bytes=0)  # Without a remote, or with another one.
    second.prune(max_bytes=0)
    assert first.usage().files == 1
    theirs.fault = _works
    assert first.drain() == 0
    assert len(held_by(theirs, "theirs")) == 1
    assert AdapterStore(path).pending_uploads() == 0


def test_an_entry_stays_until_all_remotes_have_it(tmp_path: Path) -> None:
    scripts = Script(), Script()
    (key, entry), path = make_entry(), tmp_path / "store"
    stores = [
        AdapterStore(path, remote=down(script, f"scripted://box{number}"))
        for number, script in enumerate(scripts)
    ]
    for store in stores:
        store.put(key, entry)
        store.close()
    assert stores[0].pending_uploads() == 2
    for left, (store, script) in enumerate(zip(stores, scripts, strict=True)):
        store.prune(max_bytes=0)
        assert (store.pending_uploads(), store.usage().files) == (2 - left, 1)
        script.fault = _works
        assert store.drain() == 0
    stores[0].prune(max_bytes=0)
    assert stores[0].usage().files == 0


def test_folders_of_marks_are_private(script: Script, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store", remote=down(script, "scripted://box"))
    key, entry = make_entry()
    store.put(key, entry)
    store.close()
    folders = [store.path, *(path for path in store.path.rglob("*") if path.is_dir())]
    assert {folder.stat().st_mode & 0o077 for folder in folders} == {0}


def test_an_outbox_that_cannot_be_written_to_is_noticed_before_training(
    script: Script, tmp_path: Path
) -> None:
    key, _ = make_entry()
    break_outbox(tmp_path / "store" / "outbox")
    AdapterStore(tmp_path / "store").prepare(key)
    with pytest.raises(StoreError, match=r"cannot write to .*outbox"):
        AdapterStore(tmp_path / "store", remote=script.folder()).prepare(key)


@posix_only
def test_an_outbox_that_others_can_write_to_is_refused(script: Script, tmp_path: Path) -> None:
    key, _ = make_entry()
    store = AdapterStore(tmp_path / "store", remote=script.folder())
    store.prepare(key)
    (outbox,) = (store.path / "outbox").iterdir()
    outbox.chmod(0o770)
    with pytest.raises(StoreError, match="chmod go-w"):
        store.prepare(key)


def test_what_was_learned_is_kept_without_an_outbox(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = AdapterStore(tmp_path / "store", remote=script.folder())
    entries = [make_entry(digit * 64) for digit in "ab"]
    break_outbox(store.path / "outbox")
    for key, entry in entries:
        assert store.put(key, entry)
        assert store.get(key) is not None
    assert len(script.objects) == 2
    assert len(warnings_of(caplog)) == 1


def test_a_put_that_fails_leaves_no_mark(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path / "store", remote=down(script, "scripted://box"))
    (key, entry), (other_key, other) = make_entry("a" * 64), make_entry("b" * 64)
    store.put(key, entry)

    def full(path: Path, data: bytes) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "create", full)
    for each in ((key, entry), (other_key, other)):
        with pytest.raises(StoreError, match="No space left"):
            store.put(*each)
    # The first one is there, and the remote has not got it.
    assert store._outboxes.pending() == [(store.namespace.folder, key)]
    store.close()


def test_what_is_removed_waits_for_no_remote(tmp_path: Path) -> None:
    scripts = Script(), Script()
    (key, entry), path = make_entry(), tmp_path / "store"
    for number, script in enumerate(scripts):
        store = AdapterStore(path, remote=down(script, f"scripted://box{number}"))
        store.put(key, entry)
        store.close()
    store = AdapterStore(path)
    assert store.pending_uploads() == 2
    assert store.remove(key)
    assert store.pending_uploads() == 0


def test_uploads_that_are_given_up_keep_nothing_from_being_evicted(
    script: Script, tmp_path: Path
) -> None:
    store = AdapterStore(tmp_path / "store", remote=down(script, "scripted://gone"))
    for digit in "ab":
        store.put(*make_entry(digit * 64))
    store.close()
    Outboxes(store.path / "outbox").of("0" * 32).add("f" * 32, KEY)  # Another namespace's.
    later = AdapterStore(store.path)
    later.prune(max_bytes=0)
    assert later.usage().files == 2
    assert later.forget_uploads() == 2
    assert later.forget_uploads() == 0
    assert later.pending_uploads() == 1
    assert later.usage().files == 2
    later.prune(max_bytes=0)
    assert later.usage().files == 0


def test_closing_a_tenant_s_view_does_not_stop_the_uploads_of_others(
    script: Script, tmp_path: Path, gate: threading.Event
) -> None:
    script.fault = waits_for(gate, "write")
    store = AdapterStore(tmp_path / "store", remote=script.folder(), remote_mode="write-behind")
    store.put(*make_entry())
    start = time.monotonic()
    store.in_namespace("acme").in_namespace("other").close()
    assert time.monotonic() - start < SOON / 6  # It does not wait for them, either.
    (thread,) = uploads_behind()
    assert store._remote is not None
    assert store._remote._background.until == math.inf
    gate.set()
    thread.join(SOON)
    assert store.pending_uploads() == 0
    store.close()


def test_a_store_is_used_further_after_it_was_closed(script: Script, tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store", remote=script.folder(), remote_mode="write-behind")
    for digit in "ab":
        store.put(*make_entry(digit * 64))
        store.close()
        assert store.pending_uploads() == 0
    assert len(script.objects) == 2
