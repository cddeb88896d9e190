"""Sealed tokens as JWE (compact, `alg: dir`, `enc: A256GCM`) by joserfc, whose modules are loaded when first needed:
what only reads records does not wait for them.
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
        "instance": HeaderParameter("the Palette instance", "str", required=True),
        "uid": HeaderParameter("the cluster's uid", "str", required=True),
    },
    algorithms=[ALGORITHM, ENCRYPTION],
)


class DoesNotOpen(Exception):
    """Not sealed with this key, or damaged."""


class JweKey:
    """One 256-bit key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = OctKey.import_key(key)

    def encrypt(self, header: Mapping[str, str], plaintext: str) -> str:
        """`header` is protected; `alg` and `enc` are added."""
        whole = {"alg": ALGORITHM, "enc": ENCRYPTION, **header}
        return jwe.encrypt_compact(whole, plaintext, self._key, registry=_REGISTRY)

    def decrypt(self, sealed: str) -> str:
        """Raises DoesNotOpen."""
        try:
            opened = jwe.decrypt_compact(sealed, self._key, registry=_REGISTRY)
            return (opened.plaintext or b"").decode()
        # The library lets cryptography's errors and decoding errors through.
        except (JoseError, ValueError, TypeError, KeyError):
            raise DoesNotOpen from None
