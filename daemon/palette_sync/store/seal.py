"""Sealing: Redis holds tokens only encrypted, and what readers act on is authenticated.

A sealed token is a JWE (compact, `alg: dir`, `enc: A256GCM`) whose protected header names the cluster, its server and
the token's times, so that it opens for nothing else. A mac is an HMAC with a key derived (HKDF-SHA256) from the seal
key: somebody who can write to Redis but holds no key cannot make a reader send tokens to another server. Every
configured key opens and verifies, and the first one seals, so that keys are replaced without downtime.
docs/redis-contract.md gives the exact bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from palette_sync.core.model import Secret

if TYPE_CHECKING:
    from palette_sync.core.snapshot_codec import SealedFor
    from palette_sync.store.jwe import JweKey

KEY_BYTES = 32
MAC_INFO = b"palette-sync/mac/1"
BARE = "none:"
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BINDINGS = {
    "for another cluster": ("prefix", "instance", "uid"),
    "for another server": ("server",),
    "with other times": ("issued_at", "expires_at"),
}
_REMEDY = "make one with `palette-sync seal-key`"


class SealKeyError(Exception):
    """The seal keys cannot be used. The text names the line and a remedy, never a key."""


class SealError(Exception):
    """A sealed token cannot be opened for this cluster. The text names at most the key's id."""


class Sealer(Protocol):
    """Seals tokens and authenticates texts. `Unsealed` does neither, for `seal = "none"`."""

    @property
    def authenticates(self) -> bool: ...

    def seal(self, target: SealedFor, token: Secret) -> str: ...

    def open(self, target: SealedFor, sealed: str) -> Secret:
        """Raises SealError."""
        ...

    def current(self, sealed: str) -> bool:
        """Whether it is sealed with the key that seals at present."""
        ...

    def mac(self, text: str) -> str:
        """The mac of one of the texts of `core.mac_texts`, with the key that seals at present."""
        ...

    def macs(self, text: str) -> list[str]:
        """One mac per key, the sealing key first, for a receiver that has not loaded that key yet."""
        ...

    def mac_matches(self, text: str, mac: str) -> bool: ...


class SealKeys:
    """The configured keys in their order: the first seals, all of them open."""

    __slots__ = ("_keys", "_loaded", "_mac_keys", "_sealing")

    def __init__(self, keys: dict[str, bytes]) -> None:
        if not keys:
            raise SealKeyError(f"seal keys: no key is configured; {_REMEDY}")
        self._sealing = next(iter(keys))
        self._keys = dict(keys)
        self._loaded: dict[str, JweKey] = {}
        self._mac_keys = {kid: _mac_key(key) for kid, key in keys.items()}

    def __repr__(self) -> str:
        return f"SealKeys({', '.join(self._keys)})"

    @classmethod
    def from_lines(cls, text: str) -> SealKeys:
        """Read one key per line, `<kid> <base64url of 32 bytes>`; empty lines and `#` comments are ignored.

        Raises SealKeyError.
        """
        keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            kid, key = _parse(number, words)
            if kid in keys:
                raise SealKeyError(f"seal keys, line {number}: the key id {kid} is used twice; rename one of them")
            keys[kid] = key
        return cls(keys)

    @staticmethod
    def generate_line(kid: str | None = None) -> str:
        """Return a line with a new random key. Raises SealKeyError for an invalid key id."""
        name = f"k{secrets.token_hex(4)}" if kid is None else kid
        if not _KID.fullmatch(name):
            raise SealKeyError("a key id has 1 to 64 letters, digits and . _ -")
        key = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode().rstrip("=")
        return f"{name} {key}"

    @property
    def authenticates(self) -> bool:
        return True

    def seal(self, target: SealedFor, token: Secret) -> str:
        return self._jwe_key(self._sealing).encrypt({"kid": self._sealing, **asdict(target)}, token.reveal())

    def open(self, target: SealedFor, sealed: str) -> Secret:
        header = _header(sealed)
        kid = header.get("kid")
        if not isinstance(kid, str) or kid not in self._keys:
            named = f"the key {kid}" if isinstance(kid, str) and _KID.fullmatch(kid) else "the key that it names"
            raise SealError(f"{named} is not among the seal keys ({', '.join(self._keys)})")
        if header.get("alg") != "dir" or header.get("enc") != "A256GCM":
            raise SealError("it is not sealed with dir and A256GCM")
        for why, names in _BINDINGS.items():
            if any(header.get(name) != getattr(target, name) for name in names):
                raise SealError(f"it was sealed {why}")
        from palette_sync.store.jwe import WrongKey  # noqa: PLC0415 - see its docstring

        try:
            return Secret(self._jwe_key(kid).decrypt(sealed))
        except WrongKey:
            raise SealError(f"it does not open with the key {kid}") from None

    def _jwe_key(self, kid: str) -> JweKey:
        key = self._loaded.get(kid)
        if key is None:
            from palette_sync.store.jwe import JweKey  # noqa: PLC0415 - see its docstring

            key = self._loaded[kid] = JweKey(self._keys[kid])
        return key

    def current(self, sealed: str) -> bool:
        try:
            return _header(sealed).get("kid") == self._sealing
        except SealError:
            return False

    def mac(self, text: str) -> str:
        return _mac(self._mac_keys[self._sealing], text)

    def macs(self, text: str) -> list[str]:
        return [_mac(key, text) for key in self._mac_keys.values()]

    def mac_matches(self, text: str, mac: str) -> bool:
        given = mac.encode(errors="replace")
        fits = [hmac.compare_digest(_mac(key, text).encode(), given) for key in self._mac_keys.values()]
        return any(fits)


class Unsealed:
    """For `seal = "none"`: tokens are stored unencrypted, and nothing is authenticated."""

    @property
    def authenticates(self) -> bool:
        return False

    def seal(self, target: SealedFor, token: Secret) -> str:  # noqa: ARG002 - the Sealer protocol
        return BARE + token.reveal()

    def open(self, target: SealedFor, sealed: str) -> Secret:  # noqa: ARG002 - the Sealer protocol
        if not sealed.startswith(BARE):
            raise SealError('it is sealed, but with seal = "none" there is no key')
        return Secret(sealed.removeprefix(BARE))

    def current(self, sealed: str) -> bool:
        return sealed.startswith(BARE)

    def mac(self, text: str) -> str:  # noqa: ARG002 - the Sealer protocol
        return ""

    def macs(self, text: str) -> list[str]:
        return [self.mac(text)]

    def mac_matches(self, text: str, mac: str) -> bool:  # noqa: ARG002 - the Sealer protocol
        return True


def _parse(number: int, words: list[str]) -> tuple[str, bytes]:
    if len(words) != 2:  # noqa: PLR2004 - a key id and a key
        raise SealKeyError(f"seal keys, line {number}: a line consists of a key id, a space and a key; {_REMEDY}")
    kid, text = words
    if not _KID.fullmatch(kid):
        raise SealKeyError(f"seal keys, line {number}: the key id must have 1 to 64 letters, digits and . _ -")
    try:
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        # The key id is not quoted: if the two words are swapped, it is the key.
        raise SealKeyError(f"seal keys, line {number}: its second word is not base64url of 32 bytes; {_REMEDY}")
    if not any(key):
        raise SealKeyError(
            f"seal keys, line {number}: the key {kid} is the public one of config.example.toml; {_REMEDY}"
        )
    return kid, key


def _header(sealed: str) -> dict[str, Any]:
    first = sealed.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError):  # RecursionError: deeply nested JSON
        header = None
    if not isinstance(header, dict):
        raise SealError("it is not a sealed token (not a JWE)")
    return header


def _mac_key(key: bytes) -> bytes:
    """HKDF (RFC 5869) with SHA-256, without salt: extract, and the one block of expand."""
    return hmac.digest(hmac.digest(bytes(KEY_BYTES), key, "sha256"), MAC_INFO + b"\x01", "sha256")


def _mac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
