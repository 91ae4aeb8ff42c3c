"""What adapters and frozen prefixes belong to, as keys. Light: loads no torch."""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Sequence

from ttt_core.config import AdaptationConfig, Settings
from ttt_core.namespace import Namespace

ALGORITHM_VERSION = 1
"""Raised when the same recipe would train other weights than before."""

PREFIX_VERSION = 1
"""Raised when the same tokens would be kept as other keys and values than before."""


class AdapterIdentity(Settings):
    """All that decides what training would learn; stored with the adapter, and hashed as its key.

    Every hash is 64 hexadecimal digits.
    """

    algorithm: int = ALGORITHM_VERSION
    base: str
    """`fingerprint.weights_fingerprint` of the model."""
    tokenizer: str
    """`fingerprint.vocabulary_fingerprint` of the tokenizer."""
    template: str
    """Hash of the chat template and its variables."""
    prefix: str
    """Hash of the tokens of system prompt and document; see `hash_tokens`."""
    question: str = ""
    """Likewise of the tokens of the question that it was trained for; empty: for any."""
    config: AdaptationConfig
    """The recipe."""

    def key(self, namespace: Namespace) -> str:
        """Return the key under which the adapter is stored: 64 hexadecimal digits."""
        return namespace.digest("adapter", _canonical(self.model_dump(mode="json")))


def hash_tokens(namespace: Namespace, input_ids: Sequence[int]) -> str:
    """Hash token ids: the same in all namespaces, unless a secret hides which tokens they are."""
    ids = array("q", input_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    if namespace.secret is None:
        return hashlib.sha256(ids.tobytes()).hexdigest()
    return namespace.digest("tokens", ids.tobytes())


def prefix_key(
    namespace: Namespace, *, base: str, dtype: str, library: str, input_ids: Sequence[int]
) -> str:
    """Return the key of keys and values: the namespace's folder, a hyphen, 64 hexadecimal digits.

    Chunk size and attention kernel do not count: they change keys and values by rounding only.

    Args:
        namespace: Whose they are.
        base: `fingerprint.weights_fingerprint` of the model; empty for a key that does not leave
            the engine.
        dtype: The model's.
        library: Version of transformers, which decides in what shape a layer caches them.
        input_ids: All tokens of system prompt and document.
    """
    identity = {
        "version": PREFIX_VERSION,
        "base": base,
        "dtype": dtype,
        "library": library,
        "prefix": hash_tokens(namespace, input_ids),
    }
    return f"{namespace.folder}-{namespace.digest('prefix', _canonical(identity))}"


def _canonical(identity: dict[str, object]) -> bytes:
    return json.dumps(identity, sort_keys=True).encode()
