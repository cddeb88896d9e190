"""Sealed tokens as JWE (compact, `alg: dir`, `enc: A256GCM`), with joserfc.

Only `seal` imports this module, when it first needs it: commands that only read records start without joserfc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.registry import HeaderParameter

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM, ENCRYPTION = "dir", "A256GCM"
_REGISTRY = jwe.JWERegistry(
    header_registry={
        name: HeaderParameter("what the token is bound to", "str", required=True)
        for name in ("prefix", "instance", "uid", "server", "issued_at", "expires_at")
    },
    algorithms=[ALGORITHM, ENCRYPTION],
)


class WrongKey(Exception):
    """The token is sealed with another key, or damaged."""


class JweKey:
    """One 256-bit key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = OctKey.import_key(key)

    def encrypt(self, header: Mapping[str, str], plaintext: str) -> str:
        """Seal. `header` is protected; `alg` and `enc` are added to it."""
        protected = {"alg": ALGORITHM, "enc": ENCRYPTION, **header}
        return jwe.encrypt_compact(protected, plaintext, self._key, registry=_REGISTRY)

    def decrypt(self, sealed: str) -> str:
        """Raises WrongKey."""
        try:
            opened = jwe.decrypt_compact(sealed, self._key, registry=_REGISTRY)
            return (opened.plaintext or b"").decode()
        # joserfc does not wrap the errors of cryptography and of decoding.
        except (JoseError, ValueError, TypeError, KeyError):
            raise WrongKey from None
