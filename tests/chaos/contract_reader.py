"""A reader of the snapshot that follows docs/redis-contract.md and shares no code with palette-sync.

It reads and refuses as the Backstage adapter does. The chaos suite trusts its view, so it is written from the page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from joserfc import jwe
from joserfc.jwk import OctKey
from joserfc.registry import HeaderParameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Order = tuple[int, int]  # epoch and version
MAC_INFO = b"palette-sync/mac/1"
_HEADERS = ("prefix", "instance", "uid", "server", "issued_at", "expires_at")
_REGISTRY = jwe.JWERegistry(
    header_registry={name: HeaderParameter(name, "str") for name in _HEADERS}, algorithms=["dir", "A256GCM"]
)


class Refused(Exception):
    """The snapshot does not verify; a reader keeps what it holds."""


@dataclass(frozen=True)
class Key:
    """One line of the seal keys file."""

    kid: str
    secret: bytes = field(repr=False)

    @classmethod
    def read(cls, line: str) -> Key:
        kid, text = line.split()
        return cls(kid, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    def mac(self, text: str) -> str:
        extracted = hmac.digest(bytes(32), self.secret, "sha256")
        key = hmac.digest(extracted, MAC_INFO + b"\x01", "sha256")
        return hmac.new(key, text.encode(), "sha256").hexdigest()


@dataclass(frozen=True)
class Token:
    token: str = field(repr=False)
    document: Mapping[str, str]


@dataclass(frozen=True)
class Snapshot:
    """One verified version."""

    epoch: int
    version: int
    writer: str
    complete: bool
    digests: tuple[str, str]
    records: Mapping[str, Mapping[str, Any]]
    tokens: Mapping[str, Token]
    unconfirmed: frozenset[str]

    @property
    def order(self) -> Order:
        return self.epoch, self.version


def verified(
    raw_head: Mapping[bytes, bytes],
    raw_clusters: Mapping[bytes, bytes],
    raw_credentials: Mapping[bytes, bytes],
    *,
    prefix: str,
    instance: str,
    keys: list[Key],
) -> Snapshot | None:
    """Verify what one transaction read. Returns None where nothing is published. Raises Refused."""
    head = {name.decode(): value.decode() for name, value in raw_head.items()}
    if "version" not in head:
        return None
    if head["schema"] != "1" or int(head["clusters"]) != len(raw_clusters):
        raise Refused("schema or count")
    digests = (_digest(raw_clusters), _digest(raw_credentials))
    if digests != (head["digest"], head["credentials_digest"]):
        raise Refused("digest")
    unconfirmed = head.get("unconfirmed", "")
    _check_mac(head, head["version"], head["changed_at"], prefix=prefix, instance=instance, keys=keys)
    records = {uid.decode(): json.loads(value) for uid, value in raw_clusters.items()}
    place = {"prefix": prefix, "instance": instance}
    tokens = {
        uid.decode(): _opened(json.loads(value), {**place, "uid": uid.decode()}, records[uid.decode()], keys)
        for uid, value in raw_credentials.items()
    }
    return Snapshot(
        epoch=int(head["epoch"]),
        version=int(head["version"]),
        writer=head["writer"],
        complete=head["complete"] == "1",
        digests=digests,
        records=records,
        tokens=tokens,
        unconfirmed=frozenset(json.loads(unconfirmed) if unconfirmed else ()),
    )


def _check_mac(
    fields: Mapping[str, str], version: str, changed_at: str, *, prefix: str, instance: str, keys: list[Key]
) -> None:
    """Check the mac of a head, or of an entry of the stream of changes. Raises Refused."""
    unconfirmed = hashlib.sha256(fields.get("unconfirmed", "").encode()).hexdigest()
    parts = ["palette-sync/head/1", prefix, instance, fields["epoch"], version, fields["clusters"]]
    parts += [fields["complete"], changed_at, fields["digest"], fields["credentials_digest"], unconfirmed]
    if not any(hmac.compare_digest(key.mac("\n".join(parts)), fields["mac"]) for key in keys):
        raise Refused("mac")


def verified_changes(
    entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]], *, prefix: str, instance: str, keys: list[Key]
) -> dict[Order, tuple[str, str]]:
    """The digests of the versions in the stream of changes, by epoch and version. Raises Refused."""
    found = {}
    for name, raw in entries:
        version = name.decode().partition("-")[0]
        fields = {field.decode(): value.decode() for field, value in raw.items()}
        _check_mac(fields, version, fields["at"], prefix=prefix, instance=instance, keys=keys)
        found[int(fields["epoch"]), int(version)] = (fields["digest"], fields["credentials_digest"])
    return found


def _digest(values: Mapping[bytes, bytes]) -> str:
    lines = sorted(uid + b"\t" + hashlib.sha256(value).hexdigest().encode() for uid, value in values.items())
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def _opened(document: Mapping[str, str], place: Mapping[str, str], record: Any, keys: list[Key]) -> Token:
    header = json.loads(base64.urlsafe_b64decode(document["sealed"].split(".")[0] + "=="))
    key = next((one for one in keys if one.kid == header["kid"]), None)
    if key is None:
        raise Refused("a token is sealed with an unknown key")
    server = record["server"]
    parts = (server["url"], server.get("ca_data", ""), server.get("tls_server_name", ""))
    wanted = {
        **place,
        "server": hashlib.sha256("\n".join(parts).encode()).hexdigest(),
        "issued_at": document["issued_at"],
        "expires_at": document.get("expires_at", ""),
    }
    if {name: header.get(name) for name in wanted} != wanted:
        raise Refused("a token belongs elsewhere")
    opened = jwe.decrypt_compact(document["sealed"], OctKey.import_key(key.secret), registry=_REGISTRY)
    return Token((opened.plaintext or b"").decode(), document)


@dataclass
class View:
    """What a reader holds: the newest snapshot that it accepted, and the records that it serves."""

    snapshot: Snapshot | None = None
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)

    def accept(self, new: Snapshot) -> bool:
        """Take a newer snapshot. Returns False for one that is held already or older."""
        if self.snapshot is not None and new.order <= self.snapshot.order:
            return False
        kept = {uid for uid in new.unconfirmed if uid in self.records}
        if not new.complete:
            kept |= self.records.keys() - new.records.keys()
        records, tokens = self.records, self.tokens
        self.records = {**new.records, **{uid: records[uid] for uid in kept}}
        self.tokens = {**{uid: one for uid, one in new.tokens.items() if uid not in kept}}
        self.tokens |= {uid: tokens[uid] for uid in kept if uid in tokens}
        self.snapshot = new
        return True
