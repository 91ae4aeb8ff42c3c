"""The file of one adapter: says all about it, comes back exactly, and is refused otherwise."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from io import BytesIO
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from tests.store.forging import data_of, forge, header_of, seal, spell, spell_text
from tests.store.samples import (
    KEY,
    NOT_FINITE,
    OTHER,
    kept_base,
    make_entry,
    make_identity,
    make_probe,
    make_report,
    run,
    same,
    shapes_of,
)
from ttt_core.store import StoredAdapter
from ttt_core.store.format import (
    MAX_BYTES,
    MAX_HEADER_BYTES,
    FormatError,
    Header,
    QueryRows,
    check,
    check_bytes,
    check_file,
    check_shapes,
    encode,
    read_file,
    read_header,
    read_weights,
)

WHOLE = encode(make_entry(), KEY, namespace="tenant")
MATRICES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
        lambda name: name != "__metadata__"
    ),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    max_size=5,
)


def decode(data: bytes) -> StoredAdapter:
    about = check_bytes(data).metadata
    return StoredAdapter(
        about.identity,
        about.report,
        read_weights(data),
        about.base_model,
        about.query_rows,
        about.created,
    )


def changed(data: bytes = WHOLE, *, sealed: bool = True, **header: Any) -> bytes:
    """The file with other entries in its header; None takes one away."""
    merged = {**header_of(data), **header}
    merged = {name: value for name, value in merged.items() if value is not None}
    return spell(seal(merged, data_of(data)) if sealed else merged, data_of(data))


# ---------------------------------------------------------------- what is written


def test_a_file_says_everything_about_its_adapter() -> None:
    metadata = header_of(WHOLE)["__metadata__"]
    about = json.loads(metadata["adapter"])
    assert metadata["format"] == "context-ttt adapter"
    assert metadata["format_version"] == "2"
    assert len(metadata["checksum"]) == 64
    assert about["key"] == KEY
    assert about["namespace"] == "tenant"
    assert about["base_model"] == "some/model"
    assert about["identity"] == make_identity().model_dump(mode="json")
    assert {"base", "tokenizer", "template", "prefix", "config"} < about["identity"].keys()
    assert about["report"] == make_report().model_dump(mode="json")
    created = datetime.fromisoformat(about["created"].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - created).total_seconds()) < 3600


def test_any_reader_of_safetensors_reads_the_weights() -> None:
    weights = load(WHOLE)
    entry = make_entry()
    assert weights.keys() == entry.weights.keys()
    assert all(torch.equal(weights[name], entry.weights[name]) for name in weights)
    assert all(weight.dtype == torch.float32 for weight in weights.values())


@given(shapes=MATRICES, base_model=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_what_is_written_comes_back(shapes: dict[str, tuple[int, int]], base_model: str) -> None:
    weights = {name: torch.randn(shape) for name, shape in shapes.items()}
    entry = StoredAdapter(make_identity(), make_report(), weights, base_model)
    data = encode(entry, KEY)
    assert same(decode(data), entry)
    assert read_header(BytesIO(data), len(data)).shapes == shapes_of(entry)


def test_an_entry_without_weights_comes_back() -> None:
    assert same(decode(encode(kept_base(), KEY)), kept_base())


@pytest.mark.parametrize("after", NOT_FINITE)
def test_losses_that_are_not_finite_come_back(after: float) -> None:
    report = make_report(probe=make_probe(after), losses=(after,))
    probe = decode(encode(StoredAdapter(make_identity(), report), KEY)).report.probe
    assert probe is not None
    assert str(probe.after) == str(after)


def test_writing_again_what_was_read_gives_the_same_bytes() -> None:
    assert encode(decode(WHOLE), KEY, namespace="tenant") == WHOLE


def test_a_report_that_no_reader_would_take_is_not_written() -> None:
    report = make_report(losses=(1 / 3,) * 200_000)
    with pytest.raises(ValueError, match="too many to be read"):
        encode(StoredAdapter(make_identity(), report), KEY)


def test_a_report_of_ten_thousand_steps_is_written() -> None:
    entry = StoredAdapter(make_identity(), make_report(losses=(1 / 3,) * 10_000))
    assert same(decode(encode(entry, KEY)), entry)


# ---------------------------------------------------------------- what is read


def test_reading_a_header_reads_nothing_else() -> None:
    class Counting(BytesIO):
        n_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size >= 0
            self.n_read += size
            return super().read(size)

    data = encode(make_entry(size=100_000), KEY)
    file = Counting(data)
    header = read_header(file, len(data))
    assert header.metadata.key == KEY
    assert header.size == len(data)
    assert file.n_read == len(data) - len(data_of(data))


def test_the_header_is_looked_at_before_the_rest_is_read() -> None:
    def refuse(header: Header) -> None:
        assert header.metadata.key == KEY
        raise FormatError("not this one")

    file = BytesIO(WHOLE)
    with pytest.raises(FormatError, match="not this one"):
        read_file(file, len(WHOLE), refuse)
    assert file.tell() == len(WHOLE) - len(data_of(WHOLE))


def test_headers_are_read_without_torch() -> None:
    code = "import sys, ttt_core.store.format; print('torch' in sys.modules)"
    assert run(code) == "False\n"


def test_the_checksum_covers_all_of_metadata_and_weights() -> None:
    """A change that leaves a valid header is still a change."""
    header = header_of(WHOLE)
    header["__metadata__"]["adapter"] = header["__metadata__"]["adapter"].replace("some", "evil")
    with pytest.raises(FormatError, match="its checksum is wrong"):
        check_bytes(spell(header, data_of(WHOLE)))
    with pytest.raises(FormatError, match="its checksum is wrong"):
        check_bytes(WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]))
    exchanged = header_of(WHOLE)
    a, b = "a.lora_A.weight", "a.lora_B.weight"
    exchanged[a], exchanged[b] = exchanged[b], exchanged[a]
    with pytest.raises(FormatError, match="its checksum is wrong"):
        check_bytes(spell(exchanged, data_of(WHOLE)))


def test_a_file_that_changed_its_length_meanwhile_is_refused() -> None:
    header = read_header(BytesIO(WHOLE), len(WHOLE))
    with pytest.raises(FormatError, match="its length"):
        check(header, WHOLE + b"\0")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, len(WHOLE) - 1])
def test_a_truncated_file_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        check_bytes(WHOLE[:size])


def test_a_longer_file_is_refused() -> None:
    with pytest.raises(FormatError, match="do not fill the file"):
        check_bytes(WHOLE + b"\0")


@pytest.mark.parametrize(
    "metadata",
    [
        {"format_version": "1"},
        {"format_version": "3"},
        {"format_version": 2},
        {"format": "pt"},
        {"extra": 1},
        {"extra": {"a": [[]]}},
    ],
    ids=str,
)
def test_other_formats_and_versions_are_refused(metadata: dict[str, Any]) -> None:
    header = header_of(WHOLE)
    with pytest.raises(FormatError):
        check_bytes(changed(__metadata__={**header["__metadata__"], **metadata}))


def test_a_file_of_other_safetensors_is_refused() -> None:
    for metadata in (None, {}, {"format": "pt"}):
        with pytest.raises(FormatError):
            check_bytes(save({"w": torch.ones(3)}, metadata))


TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "tensor",
    [
        {**TENSOR, "dtype": "BF16", "shape": [2, 4]},
        {**TENSOR, "dtype": "F64", "shape": [2, 1]},
        {**TENSOR, "shape": [2, 3]},
        {**TENSOR, "shape": [4, 1, 1]},
        {**TENSOR, "shape": [-2, -2]},
        {**TENSOR, "shape": [2.0, 2]},
        {**TENSOR, "shape": [True, 4]},
        {**TENSOR, "shape": ["2", 2]},
        {**TENSOR, "shape": "22"},
        {**TENSOR, "shape": [2**62, 2**62]},
        {**TENSOR, "shape": None},
        {**TENSOR, "shape": [[2], 2]},
        {**TENSOR, "shape": [10**4000, 0]},
        {**TENSOR, "data_offsets": [0, 2**63]},
        {**TENSOR, "data_offsets": [-16, 0]},
        {**TENSOR, "data_offsets": [16, 0]},
        {**TENSOR, "data_offsets": [0]},
        {**TENSOR, "data_offsets": [0, 8, 16]},
        {**TENSOR, "data_offsets": [0, 16.0]},
        {**TENSOR, "extra": [[[[]]]]},
        {"dtype": "F32"},
        {},
        [],
        "F32",
        7,
    ],
    ids=str,
)
def test_absurd_tensors_are_refused_even_if_the_checksum_is_right(tensor: Any) -> None:
    header = {"w": tensor, "__metadata__": header_of(WHOLE)["__metadata__"]}
    data = bytes(16)
    with pytest.raises(FormatError):
        check_bytes(spell(seal(header, data), data))
    file = spell({"w": tensor}, data)
    with pytest.raises(FormatError):
        check_shapes(BytesIO(file), len(file))


def test_tensors_that_overlap_or_leave_gaps_are_refused() -> None:
    metadata = header_of(WHOLE)["__metadata__"]
    for second in ([0, 16], [8, 24], [24, 40]):
        header = {"a": TENSOR, "b": {**TENSOR, "data_offsets": second}, "__metadata__": metadata}
        data = bytes(max(second[1], 16))
        with pytest.raises(FormatError, match="do not fill the file"):
            check_bytes(spell(seal(header, data), data))


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text[:1] + text,
        lambda text: b" " + text,
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: text.replace(b'"F32"', b'"F32","dtype":"F32"', 1),
        lambda text: text.replace(b"some", b"s\\u006fme"),
        lambda text: text.replace(b"[0, ", b"[-0, ", 1),
        lambda text: text.replace(b", ", b","),
        lambda text: text + b"\n",
        lambda text: text + b"\0",
    ],
)
def test_a_header_that_other_readers_could_read_otherwise_is_refused(respell: Any) -> None:
    text = WHOLE[8 : len(WHOLE) - len(data_of(WHOLE))].rstrip(b" ")
    assert respell(text) != text
    check_bytes(spell_text(text, data_of(WHOLE)))
    with pytest.raises(FormatError):
        check_bytes(spell_text(respell(text), data_of(WHOLE)))


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(FormatError):
        check_bytes(changed(**{"\ud800": {**TENSOR, "shape": [0], "data_offsets": [0, 0]}}))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b'{"a":' * 300_000,
        b'{"__metadata__":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"__metadata__":{"format":"context-ttt adapter","format_version":"2","adapter":"'
        + b"[" * 100_000
        + b'"}}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1e999}',
        b'{"__metadata__":NaN}',
        b"null",
        b"[]",
        b'"x"',
        b"\xff" * 100,
        b"{",
        b" ",
    ],
    ids=lambda text: text[:12].decode("latin1"),
)
def test_headers_that_are_hard_to_parse_are_refused(text: bytes) -> None:
    data = spell_text(text, b"")
    with pytest.raises(FormatError):
        check_bytes(data)
    with suppress(FormatError):  # What the metadata says is of no matter there.
        assert check_shapes(BytesIO(data), len(data)) == {}


@pytest.mark.parametrize("length", [0, MAX_HEADER_BYTES + 1, 80_000_000, 2**60, 2**64 - 1])
def test_a_header_of_absurd_length_is_not_read(length: int) -> None:
    """Whatever the file's size is said to be."""
    file = BytesIO(length.to_bytes(8, "little") + bytes(100))
    for size in (108, 1 << 30, MAX_BYTES, 2**62):
        file.seek(0)
        with pytest.raises(FormatError, match="no header of an adapter"):
            read_header(file, size)
        assert file.tell() == 8


def test_a_file_of_absurd_size_is_not_read() -> None:
    n = 2**50
    header = {"w": {"dtype": "F32", "shape": [n // 4], "data_offsets": [0, n]}}
    header["__metadata__"] = header_of(WHOLE)["__metadata__"]
    text = spell(header, b"")
    with pytest.raises(FormatError):
        read_file(BytesIO(text), len(text) + n)


def test_the_largest_header_that_is_parsed_takes_little_memory() -> None:
    """Lists in lists: what takes three bytes there takes sixty here."""
    n = (MAX_HEADER_BYTES - 100) // 3
    data = spell_text(b'{"a":[' + b"[]," * n + b"[]]}", b"")
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_header(BytesIO(data), len(data))
        assert tracemalloc.get_traced_memory()[1] < 80 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "about",
    [
        {"key": 7},
        {"created": "soon"},
        {"report": {}},
        {"identity": None},
        {"unknown": 1},
        {"query_rows": {"a": {"out_features": 0, "ranges": [[0, 1]]}}},
        {"query_rows": {"a": {"out_features": 9, "ranges": [[4, 2]]}}},
    ],
    ids=str,
)
def test_metadata_of_wrong_types_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        check_bytes(forge(WHOLE, **about))


def test_a_forged_key_is_found_in_the_header() -> None:
    """A forger can make the checksum right; the store compares the key with the identity."""
    assert check_bytes(forge(WHOLE, key=OTHER)).metadata.key == OTHER


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(
    "ranges", [(), ((1, 0),), ((-1, 2),), ((0, 3), (2, 4)), ((4, 6), (0, 2))], ids=str
)
def test_ranges_of_rows_have_to_ascend(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        QueryRows(out_features=9, ranges=ranges)


@given(MATRICES)
def test_shapes_of_any_file_of_matrices_are_read(shapes: dict[str, tuple[int, int]]) -> None:
    data = save({name: torch.zeros(shape) for name, shape in shapes.items()}, {"format": "pt"})
    assert check_shapes(BytesIO(data), len(data)) == shapes


def test_a_file_is_checked_a_block_at_a_time() -> None:
    """Of whatever length: nobody has to hold it."""
    weights = {"a": torch.arange(2_000_000.0).view(1000, 2000)}  # 8 MB
    whole = encode(replace(make_entry(), weights=weights), KEY)
    other = whole[:-1] + bytes([whole[-1] ^ 1])
    files = [BytesIO(data) for data in (whole, other)]
    tracemalloc.start()
    try:
        header = check_file(files[0], len(whole))
        with pytest.raises(FormatError, match="checksum is wrong"):
            check_file(files[1], len(whole))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert header == check_bytes(whole)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_file_that_is_checked_is_checked_as_one_that_is_read(place: int, change: int) -> None:
    data = bytearray(WHOLE)
    data[place] ^= change
    found = []
    for read in (check_file, read_file):
        with pytest.raises(FormatError) as caught:
            read(BytesIO(data), len(data))
        found.append(str(caught.value))
    assert found[0] == found[1]


def test_a_file_that_shrinks_while_it_is_checked_is_refused() -> None:
    with pytest.raises(FormatError, match="its length"):
        check_file(BytesIO(WHOLE[:-1]), len(WHOLE))


def test_a_file_that_is_not_accepted_is_not_hashed() -> None:
    def refuse(header: Header) -> None:
        raise FormatError("not that one")

    file = BytesIO(WHOLE)
    with pytest.raises(FormatError, match="not that one"):
        check_file(file, len(WHOLE), refuse)
    assert file.tell() < len(WHOLE)
