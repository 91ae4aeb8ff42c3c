"""Namespaces: the same document has other keys and another folder, and names are only names."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.samples import make_identity
from ttt_core import AdapterStore, ConfigError
from ttt_core.identity import hash_tokens, prefix_key
from ttt_core.namespace import Namespace

SECRET, OTHER_SECRET = b"s" * 16, b"t" * 16
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
SECRETS = st.none() | st.binary(min_size=16, max_size=40)
NAMESPACES = st.builds(Namespace, NAMES, SECRETS)
HEX = re.compile(r"[0-9a-f]*")


def every_digest(namespace: Namespace) -> list[str]:
    """All that is ever derived from a namespace for one document, the tokens' hash apart."""
    about = {"base": "b" * 64, "dtype": "float32", "library": "5"}
    return [
        namespace.folder,
        make_identity().key(namespace),
        prefix_key(namespace, **about, input_ids=(1, 2)),
    ]


@given(NAMES)
def test_every_allowed_name_is_taken(name: str) -> None:
    assert Namespace(name).name == name


@given(st.text(max_size=70))
def test_no_other_name_is_taken(name: str) -> None:
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        assert Namespace(name).name == name
    else:
        with pytest.raises(ConfigError, match="a namespace is named by 1 to 64"):
            Namespace(name)


NO_NAMES = [
    *("", ".", "..", ".a", "-a", "_a", "../a", "a/b", "a\\b", "A", "ä", "a b", "a\n", "a\0"),
    *("a" * 65, "\u0661", "a\u2024b", "C:", "~", 3, b"a", None, ("a",)),
]


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_names_that_could_be_more_than_a_name_are_refused(name: object) -> None:
    with pytest.raises(ConfigError, match="a namespace is named by 1 to 64"):
        Namespace(name)  # type: ignore[arg-type]


@given(NAMESPACES, NAMESPACES)
def test_everything_differs_between_namespaces_and_is_the_same_within_one(
    left: Namespace, right: Namespace
) -> None:
    pairs = zip(every_digest(left), every_digest(right), strict=True)
    assert all((a == b) == (left == right) for a, b in pairs)


@given(NAMESPACES)
def test_everything_derived_is_hexadecimal_digits(namespace: Namespace) -> None:
    folder, key, prefix = every_digest(namespace)
    assert (len(folder), len(key)) == (32, 64)
    assert prefix.split("-")[0] == folder
    assert HEX.fullmatch(folder + key + prefix.replace("-", ""))


def test_with_a_secret_digests_are_hmacs_and_without_one_plain_hashes() -> None:
    message = b"purpose\0name\0data"
    assert (
        Namespace("name", SECRET).digest("purpose", b"data")
        == hmac.new(SECRET, message, hashlib.sha256).hexdigest()
    )
    assert Namespace("name").digest("purpose", b"data") == hashlib.sha256(message).hexdigest()


def test_a_secret_hides_the_tokens_that_two_tenants_share() -> None:
    ids = (1, 2, 3)
    plain = {hash_tokens(Namespace(name), ids) for name in ("a", "b")}
    hidden = {hash_tokens(Namespace("a", secret), ids) for secret in (SECRET, OTHER_SECRET)}
    assert len(plain) == 1
    assert len(hidden) == 2
    assert not plain & hidden


@pytest.mark.parametrize("secret", [b"", b"s" * 15])
def test_a_short_secret_is_refused_with_what_to_do(secret: bytes) -> None:
    with pytest.raises(ConfigError, match=r"at least 16 bytes.*secrets\.token_hex"):
        Namespace("a", secret)


def test_a_secret_is_never_shown_nor_pickled() -> None:
    namespace = Namespace("a", b"very secret bytes")
    assert "secret bytes" not in repr(namespace) + str(namespace)
    with pytest.raises(TypeError, match="with a secret is not pickled"):
        pickle.dumps(namespace)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(Namespace("a"), protocol)) == Namespace("a")
    assert copy.copy(Namespace("a")) == Namespace("a")


def test_what_callers_pass_becomes_a_namespace() -> None:
    assert Namespace.of(None) == Namespace() == Namespace("default")
    assert Namespace.of("a") == Namespace("a")
    assert Namespace("a", "\u00e9" * 8) == Namespace("a", ("\u00e9" * 8).encode())
    assert Namespace.of("a", "s" * 16) == Namespace.of("a", SECRET) == Namespace("a", SECRET)
    assert Namespace.of(Namespace("a", SECRET)) == Namespace("a", SECRET)
    with pytest.raises(ConfigError):
        Namespace.of("../a")


@pytest.mark.parametrize("secret", [5, bytearray(16), [1] * 16], ids=repr)
def test_a_secret_that_is_neither_bytes_nor_text_is_refused(secret: object) -> None:
    with pytest.raises(ConfigError, match="is bytes or text"):
        Namespace("a", secret)  # type: ignore[arg-type]


def test_a_secret_for_what_has_its_own_is_refused_and_not_dropped() -> None:
    for namespace in (Namespace("a"), Namespace("a", SECRET)):
        with pytest.raises(ConfigError, match="a secret goes with a namespace's name"):
            Namespace.of(namespace, OTHER_SECRET)


@pytest.mark.parametrize("name", [5, b"x", ("a",), object()], ids=str)
def test_what_is_no_namespace_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match="a namespace is named by"):
        Namespace.of(name)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a namespace is named by"):
        AdapterStore(namespace=name)  # type: ignore[arg-type]


@given(NAMESPACES)
def test_a_copy_is_the_namespace_itself(namespace: Namespace) -> None:
    assert copy.copy(namespace) is namespace
    assert copy.deepcopy([namespace])[0] is namespace
