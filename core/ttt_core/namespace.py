"""Namespaces: tenants who share a store, and must not learn of each other's documents."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ttt_core.errors import ConfigError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
DEFAULT_NAME = "default"

_SHORTEST_SECRET = 16


@dataclass(frozen=True)
class Namespace:
    """A part of the store with keys and a folder of its own.

    Everything that is derived from a namespace is a digest; its name never becomes a path. With a
    secret, digests are HMACs (RFC 2104, SHA-256): who does not know the secret cannot tell which
    key, and so which file, a document would have.

    Attributes:
        name: `[a-z0-9][a-z0-9._-]{0,63}`.
        secret: At least 16 bytes, or text, which stands for its UTF-8; never stored, shown or
            pickled.

    Raises:
        ConfigError: A name that is not allowed, or a secret that is too short, or neither.
    """

    name: str = DEFAULT_NAME
    secret: bytes | str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Check both."""
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigError(
                "a namespace is named by 1 to 64 of a-z, 0-9, '.', '_' and '-', the first of them "
                "a letter or a digit"
            )
        if isinstance(self.secret, str):
            object.__setattr__(self, "secret", self.secret.encode("utf-8", "surrogateescape"))
        if self.secret is not None and not isinstance(self.secret, bytes):
            raise ConfigError("the secret of a namespace is bytes or text")
        if self.secret is not None and len(self.secret) < _SHORTEST_SECRET:
            raise ConfigError(
                f"the secret of a namespace has at least {_SHORTEST_SECRET} bytes, this one "
                f"{len(self.secret)}; make one with: python -c 'import secrets; "
                f"print(secrets.token_hex(32))'"
            )

    @classmethod
    def of(cls, namespace: NamespaceLike, secret: str | bytes | None = None) -> Namespace:
        """Return `namespace` as an object; None is the default one.

        Args:
            namespace: An object, a name, or None.
            secret: Goes with a name.

        Raises:
            ConfigError: No such name or secret, or a secret beside an object, which has its own.
        """
        if isinstance(namespace, Namespace):
            if secret is not None:
                raise ConfigError("a secret goes with a namespace's name; this is a namespace")
            return namespace
        return cls(DEFAULT_NAME if namespace is None else namespace, secret)

    @property
    def folder(self) -> str:
        """Name of its folder: 32 hexadecimal digits."""
        return self.digest("folder", b"")[:32]

    def digest(self, purpose: str, data: bytes) -> str:
        """Return a digest of `data` in this namespace: 64 hexadecimal digits.

        Args:
            purpose: What the digest is for; digests for other purposes tell nothing about it.
            data: Anything.
        """
        message = b"\0".join((purpose.encode(), self.name.encode(), data))
        if self.secret is None:
            return hashlib.sha256(message).hexdigest()
        assert isinstance(self.secret, bytes)
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()

    def __copy__(self) -> Namespace:
        """Return the namespace itself: it never changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Namespace:
        """Return the namespace itself, as `__copy__` does."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle, unless there is a secret: pickles end up in files and on wires."""
        if self.secret is not None:
            raise TypeError(
                "a namespace with a secret is not pickled; pass the secret to the other process "
                "yourself and make Namespace(name, secret) there"
            )
        return Namespace, (self.name,)


NamespaceLike: TypeAlias = "Namespace | str | None"
