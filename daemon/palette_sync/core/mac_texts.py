"""The texts that are authenticated: what each mac in Redis covers, as docs/redis-contract.md gives it.

Every text begins with its own name, so that a mac of one kind never fits another. Its parts are joined by line feeds
and hold none, so that two different values never make the same text.
"""

from __future__ import annotations

import hashlib

UNVERSIONED_KINDS = ("work", "scope", "issuer", "status", "activity")


class UnclearText(ValueError):
    """A part holds a line feed, so the text would not be unambiguous."""


def joined(*parts: str) -> str:
    """Raises UnclearText."""
    if any("\n" in part for part in parts):
        raise UnclearText("a part of an authenticated text holds a line feed")
    return "\n".join(parts)


def sha256_hex(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def version_text(
    prefix: str,
    instance: str,
    *,
    epoch: int,
    version: int,
    clusters: int,
    complete: bool,
    changed_at: str,
    digest: str,
    credentials_digest: str,
    unconfirmed: str,
) -> str:
    """A version: its place, order, size and content. `unconfirmed` is the field's text. Raises UnclearText."""
    return joined(
        "palette-sync/head/1",
        prefix,
        instance,
        str(epoch),
        str(version),
        str(clusters),
        str(int(complete)),
        changed_at,
        digest,
        credentials_digest,
        sha256_hex(unconfirmed),
    )


def check_text(prefix: str, instance: str, *, epoch: int, version: int, checked_at: str) -> str:
    """That the writer confirmed a version at `checked_at`. Raises UnclearText."""
    return joined("palette-sync/checked/1", prefix, instance, str(epoch), str(version), checked_at)


def value_text(kind: str, prefix: str, instance: str, field: str, content: bytes) -> str:
    """A document without a version; `kind` is one of `UNVERSIONED_KINDS`. Raises UnclearText."""
    return joined(f"palette-sync/{kind}/1", prefix, instance, field, sha256_hex(content))


def owner_text(prefix: str, ids: str) -> str:
    """The owner ids of an installation, as they stand in `p:owner`. Raises UnclearText."""
    return joined("palette-sync/owner/1", prefix, ids)


def name_text(prefix: str, name: str, claim: str) -> str:
    """The claim of a published name, as it stands in `p:names`. Raises UnclearText."""
    return joined("palette-sync/name/1", prefix, name, claim)


def member_text(prefix: str, member: str, content: bytes) -> str:
    """What a process announces about itself, as it stands in `p:members`. Raises UnclearText."""
    return joined("palette-sync/member/1", prefix, member, sha256_hex(content))


def configuration_text(digest: str) -> str:
    """The hash of a configuration; its mac is the fingerprint that processes compare. Raises UnclearText."""
    return joined("palette-sync/configuration/1", digest)


def owner_seed(prefix: str, place: str) -> str:
    """Its mac is the owner id of an installation that has no configured one. Raises UnclearText."""
    return joined("palette-sync/owner-seed/1", prefix, place)


def history_text(prefix: str, instance: str, version: int, compressed: bytes) -> str:
    """Raises UnclearText."""
    return joined("palette-sync/history/1", prefix, instance, str(version), sha256_hex(compressed))


def request_text(
    prefix: str, instance: str, *, request_id: str, verb: str, at: int, by: str, arguments: str = ""
) -> str:
    """Raises UnclearText."""
    return joined(
        *("palette-sync/request/1", prefix, instance, request_id, verb, str(at)), sha256_hex(by), sha256_hex(arguments)
    )


def answer_text(prefix: str, instance: str, *, request_id: str, word: str, text: str, document: str) -> str:
    """Raises UnclearText."""
    return joined("palette-sync/answer/1", prefix, instance, request_id, word, sha256_hex(text), sha256_hex(document))
