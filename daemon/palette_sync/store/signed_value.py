"""Documents without a version as Redis holds them: a mac, a space, and the JSON. No I/O.

`seal = "none"` leaves the mac empty, and believes any. Otherwise a value without a good mac counts as absent: somebody
else wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync.core.mac_texts import UnclearText, value_text

if TYPE_CHECKING:
    from palette_sync.store.seal import Sealer

_MAC_LENGTH = 64


class ValueSigner:
    """Signs and verifies the documents of one instance. `met_older_key`: a value carries the mac of a former key."""

    def __init__(self, sealer: Sealer, prefix: str, instance: str) -> None:
        self.met_older_key = False
        self._sealer = sealer
        self._prefix = prefix
        self._instance = instance

    def sign(self, kind: str, field: str, content: bytes) -> bytes | None:
        """Return the value to store under `field`; None if no mac can cover a field of that name."""
        try:
            text = value_text(kind, self._prefix, self._instance, field, content)
        except UnclearText:
            return None
        return self._sealer.mac(text).encode() + b" " + content

    def verified(self, kind: str, field: str, value: bytes) -> bytes | None:
        """Return the JSON of a stored value, or None if it is not authentic."""
        mac, space, content = value[: _MAC_LENGTH + 1].partition(b" ")
        content += value[_MAC_LENGTH + 1 :]
        if not space or len(mac) not in ({_MAC_LENGTH} if self._sealer.authenticates else {0, _MAC_LENGTH}):
            return None
        try:
            text = value_text(kind, self._prefix, self._instance, field, content)
        except UnclearText:
            return None
        given = mac.decode("ascii", errors="replace")
        if given == self._sealer.mac(text):
            return content
        if not self._sealer.mac_matches(text, given):
            return None
        self.met_older_key = True
        return content


def content_of(value: bytes) -> bytes:
    """Return the JSON of a value that this process signed."""
    return value.partition(b" ")[2]
