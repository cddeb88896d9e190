"""What readers act on, in the form that it has in Redis: cluster records, credentials, the head, and their hashes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from palette_sync.core.documents import DocumentError, Fields, decode_object, encode_document, format_time, present
from palette_sync.core.mac_texts import joined, sha256_hex, version_text
from palette_sync.core.model import (
    SCHEMA,
    UID,
    Access,
    AccessState,
    ClusterRecord,
    Head,
    Location,
    OidcAuth,
    PaletteFacts,
    Pause,
    Project,
    Scope,
    SealedCredential,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from palette_sync.core.model import Auth, Credential

_NUMBER = re.compile(r"0|[1-9]\d{0,14}", re.ASCII)  # exact in every language that reads it

HEAD_FIELDS = (
    *("schema", "epoch", "version", "digest", "credentials_digest", "mac", "clusters", "complete", "unconfirmed"),
    *("changed_at", "checked_at", "checked_mac", "writer"),
)


class UnknownSchemaError(DocumentError):
    """The head names a schema that this version does not know; nothing else of the snapshot may be interpreted."""


def record_hash(raw: bytes) -> str:
    """Return the hex SHA-256 of a record's bytes in Redis."""
    return hashlib.sha256(raw).hexdigest()


def digest(hashes: Mapping[str, str]) -> str:
    """Return the digest of records or credentials: hex SHA-256 over `uid TAB hash` lines, sorted, joined by newlines.

    Every uid matches `UID`, so sorting the uids sorts the lines bytewise.
    """
    text = "\n".join([f"{uid}\t{hashes[uid]}" for uid in sorted(hashes)])
    return hashlib.sha256(text.encode()).hexdigest()


def server_hash(server: Server | None) -> str:
    """Return what a sealed token is bound to: hex SHA-256 of URL, CA and server name. Raises UnclearText."""
    if server is None:
        return sha256_hex(joined("", "", ""))
    return sha256_hex(joined(server.url, server.ca_data or "", server.tls_server_name or ""))


@dataclass(frozen=True, slots=True)
class SealedFor:
    """What a sealed token belongs to; it opens for nothing else. `server` is a `server_hash`, times are text.

    `expires_at` is "" for a token that never expires.
    """

    prefix: str
    instance: str
    uid: str
    server: str
    issued_at: str
    expires_at: str


def sealed_for(prefix: str, record: ClusterRecord, credential: Credential | SealedCredential) -> SealedFor:
    """What the token of a cluster belongs to, by its record and its times. Raises UnclearText."""
    return SealedFor(
        prefix=prefix,
        instance=record.instance,
        uid=record.uid,
        server=server_hash(record.server),
        issued_at=format_time(credential.issued_at),
        expires_at=format_time(credential.expires_at) if credential.expires_at else "",
    )


def encode_unconfirmed(uids: Collection[str]) -> str:
    """Return the head's field `unconfirmed`."""
    return orjson.dumps(sorted(uids)).decode() if uids else ""


def _unconfirmed(fields: Fields) -> tuple[str, ...]:
    text = fields.text("unconfirmed")
    if not text:
        return ()
    try:
        uids = orjson.loads(text)
    except orjson.JSONDecodeError:
        uids = None
    if not isinstance(uids, list) or not all(isinstance(uid, str) and UID.fullmatch(uid) for uid in uids):
        raise fields.wrong("unconfirmed", "is not a list of uids")
    if encode_unconfirmed(set(uids)) != text:
        raise fields.wrong("unconfirmed", "is not a sorted list of distinct uids")
    return tuple(uids)


def record_to_dict(record: ClusterRecord) -> dict[str, object]:
    """Return the record as the JSON object that is published."""
    server, palette, access = record.server, record.palette, record.access
    location = {key: value for key in _LOCATION if (value := getattr(palette.location, key))}
    return present(
        uid=record.uid,
        name=record.name,
        title=record.title,
        instance=record.instance,
        scope=record.scope.value,
        project=record.project and {"uid": record.project.uid, "name": record.project.name},
        server=server and present(url=server.url, ca_data=server.ca_data, tls_server_name=server.tls_server_name),
        auth=record.auth and _auth_to_dict(record.auth),
        palette=present(
            state=palette.state,
            health=palette.health,
            cloud_type=palette.cloud_type,
            created_at=palette.created_at,
            tags=list(palette.tags),
            location=location or None,
            paused=palette.paused or None,
        ),
        access=present(state=access.state.value, reason=access.reason, message=access.message, since=access.since),
        kubernetes_version=record.kubernetes_version,
        skip_metrics_lookup=record.skip_metrics_lookup,
        dashboard_url=record.dashboard_url,
        pause=record.pause and _pause_to_dict(record.pause),
    )


_LOCATION = ("country_code", "country_name", "region_code", "region_name")


def _auth_to_dict(auth: Auth) -> dict[str, object]:
    if isinstance(auth, ServiceAccountAuth):
        return {"provider": "serviceAccount"}
    return {
        "provider": "oidc",
        "oidc_token_provider": auth.oidc_token_provider,
        "issuer_url": auth.issuer_url,
        "client_id": auth.client_id,
    }


def _pause_to_dict(pause: Pause) -> dict[str, object]:
    return present(reason=pause.reason, by=pause.by, since=pause.since, until=pause.until)


def encode_record(record: ClusterRecord) -> bytes:
    """Raises DocumentError."""
    return encode_document("cluster record", record_to_dict(record))


def decode_record(raw: bytes) -> ClusterRecord:
    """Raises DocumentError."""
    what = "cluster record"
    fields = Fields(what, decode_object(what, raw))
    access = fields.object("access")
    return ClusterRecord(
        uid=fields.uid("uid"),
        name=fields.name("name"),
        title=fields.text("title"),
        instance=fields.name("instance"),
        scope=fields.word("scope", Scope),
        project=_project(fields.object("project")) if "project" in fields else None,
        server=_server(fields.object("server")) if "server" in fields else None,
        auth=_auth(fields.object("auth")) if "auth" in fields else None,
        palette=_palette(fields.object("palette")),
        access=Access(
            state=access.word("state", AccessState),
            reason=Reason.read(access.text("reason")),
            message=access.text("message"),
            since=access.time("since"),
        ),
        kubernetes_version=fields.maybe_text("kubernetes_version"),
        skip_metrics_lookup=fields.flag("skip_metrics_lookup"),
        dashboard_url=fields.maybe_text("dashboard_url"),
        pause=_pause(fields.object("pause")) if "pause" in fields else None,
    )


def _pause(fields: Fields) -> Pause:
    return Pause(
        reason=fields.text("reason"), by=fields.text("by"), since=fields.time("since"), until=fields.maybe_time("until")
    )


def _project(fields: Fields) -> Project:
    return Project(uid=fields.uid("uid"), name=fields.text("name"))


def _server(fields: Fields) -> Server:
    return Server(
        url=fields.line("url"),
        ca_data=fields.line("ca_data") if "ca_data" in fields else None,
        tls_server_name=fields.line("tls_server_name") if "tls_server_name" in fields else None,
    )


def _auth(fields: Fields) -> Auth:
    provider = fields.text("provider")
    if provider == "serviceAccount":
        return ServiceAccountAuth()
    if provider == "oidc":
        return OidcAuth(
            oidc_token_provider=fields.text("oidc_token_provider"),
            issuer_url=fields.text("issuer_url"),
            client_id=fields.text("client_id"),
        )
    raise fields.wrong("provider", "is not one of serviceAccount, oidc")


def _palette(fields: Fields) -> PaletteFacts:
    place = fields.object("location") if "location" in fields else None
    location = {key: place.text(key) for key in _LOCATION if key in place} if place else {}
    return PaletteFacts(
        state=fields.text("state"),
        health=fields.text("health"),
        cloud_type=fields.text("cloud_type"),
        created_at=fields.maybe_time("created_at"),
        tags=fields.texts("tags"),
        location=Location(**location),
        paused=fields.maybe_flag("paused"),
    )


def record_in_history(raw: bytes) -> dict[str, object]:
    """Return a former record for the history. Its CA, by far the largest part, is replaced by the SHA-256 of the PEM.

    A record that cannot be decoded, or is nested too deeply to be encoded again, is replaced by the hash of its bytes.
    """
    try:
        document = decode_object("cluster record", raw)
        encode_document("cluster record", {"was": document})
    except DocumentError:
        return {"unreadable_sha256": record_hash(raw)}
    server = document.get("server")
    if isinstance(server, dict) and isinstance(ca_data := server.pop("ca_data", None), str):
        try:
            pem = base64.b64decode(ca_data, validate=True)
        except (binascii.Error, ValueError):
            pem = ca_data.encode()
        server["ca_sha256"] = hashlib.sha256(pem).hexdigest()
    return document


def encode_credential(credential: SealedCredential) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "credential",
        present(
            issued_at=credential.issued_at,
            renew_at=credential.renew_at,
            expires_at=credential.expires_at,
            sealed=credential.sealed,
        ),
    )


def decode_credential(raw: bytes) -> SealedCredential:
    """Raises DocumentError."""
    fields = Fields("credential", decode_object("credential", raw))
    return SealedCredential(
        issued_at=fields.time("issued_at"),
        renew_at=fields.time("renew_at"),
        expires_at=fields.maybe_time("expires_at"),
        sealed=fields.name("sealed"),
    )


def head_from_fields(members: Mapping[str, str]) -> Head:
    """Read the fields of the head's Redis hash. Raises UnknownSchemaError, DocumentError.

    A `checked_at` that is not a time counts as absent, as one without a good mac does: the version stays valid.
    """
    fields = Fields("head", members)
    schema = _number(fields, "schema")
    if schema != SCHEMA:
        raise UnknownSchemaError("head", "schema", f"is not {SCHEMA}, the only one that this version knows")
    complete = _number(fields, "complete")
    if complete > 1:
        raise fields.wrong("complete", "is neither 0 nor 1")
    try:
        checked_at = fields.time("checked_at")
    except DocumentError:
        checked_at = None
    return Head(
        schema=schema,
        epoch=_number(fields, "epoch"),
        version=_number(fields, "version"),
        digest=fields.line("digest"),
        credentials_digest=fields.line("credentials_digest"),
        mac=fields.text("mac"),
        clusters=_number(fields, "clusters"),
        complete=bool(complete),
        changed_at=fields.time("changed_at"),
        checked_at=checked_at,
        checked_mac=fields.maybe_text("checked_mac") or "",
        writer=fields.text("writer"),
        unconfirmed=_unconfirmed(fields),
    )


def _number(fields: Fields, key: str) -> int:
    value = fields.text(key)
    if not _NUMBER.fullmatch(value):
        raise fields.wrong(key, "is not a whole number of at most 15 digits")
    return int(value)


def text_of_version(prefix: str, instance: str, head: Head) -> str:
    """The text that the head's mac covers. Raises UnclearText."""
    return version_text(
        prefix,
        instance,
        epoch=head.epoch,
        version=head.version,
        clusters=head.clusters,
        complete=head.complete,
        changed_at=format_time(head.changed_at),
        digest=head.digest,
        credentials_digest=head.credentials_digest,
        unconfirmed=encode_unconfirmed(head.unconfirmed),
    )
