"""Whose documents an integration object reads: a namespace's name and secret, as its fields.

The secret itself is in no serialised form, trace or cache key. Its seal stands there for it, as
documents' ids stand for their texts: a digest that tells secrets apart and tells nothing of them.
"""

from __future__ import annotations

from pydantic import SecretStr

from ttt_core.errors import ConfigError
from ttt_core.namespace import Namespace


def make_namespace(name: str | None, secret: SecretStr | None) -> Namespace | None:
    """Return the namespace that the fields name; None: the engine's own.

    Raises:
        ConfigError: A name or secret that cannot be, or a secret without a name.
    """
    if name is None:
        if secret is not None:
            raise ConfigError("namespace_secret goes with a namespace; name one")
        return None
    return Namespace.of(name, None if secret is None else secret.get_secret_value())


def make_seal(namespace: Namespace | None, given: str) -> str:
    """Return the seal of an object; empty, if its namespace has no secret.

    Args:
        namespace: The object's.
        given: The seal that it was made with: of a copy's origin, or from a serialised form. It
            stays, for `check_seal` to see, unless another namespace took the place of its own.
    """
    own = _seal(namespace)
    other = own.partition(":")[0] != given.partition(":")[0]
    return own if own and other else given or own


def check_seal(namespace: Namespace | None, seal: str) -> None:
    """Refuse to go on without the secret: that would be another namespace, open to others.

    Raises:
        ConfigError: The secret is missing, or another one.
    """
    own = _seal(namespace)
    if own == seal:
        return
    found = "has another one" if own else "has none: no serialised form holds it"
    raise ConfigError(
        f"this object was made for a namespace with a secret, and {found}; pass the right "
        f"namespace_secret (or namespace_seal='', to do without what that one protects)"
    )


def _seal(namespace: Namespace | None) -> str:
    """Return the namespace's name, a colon, and 32 hexadecimal digits."""
    if namespace is None or namespace.secret is None:
        return ""
    return f"{namespace.name}:{namespace.digest('seal', b'')[:32]}"
