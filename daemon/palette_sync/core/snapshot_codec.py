"""The documents of the Redis contract as bytes: encode and decode, strictly, the same bytes for the same value.

Readers of another language compare hashes of these bytes, so encoding is canonical: UTF-8 JSON, sorted keys, no
spaces, no nulls (a key without a value is left out), times as RFC 3339 in UTC with `Z` and whole seconds (fractions
are cut). Decoding takes only what encoding could have written, except that unknown keys are ignored, so that a newer
writer of the same schema stays readable. Its errors tell document, place and reason and never quote a value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from palette_sync.core.model import (
    SCHEMA,
    YEARS,
    Access,
    AccessState,
    ClusterRecord,
    Head,
    IssuerMetadata,
    Location,
    OidcAuth,
    PaletteFacts,
    Project,
    RetiredSecret,
    Scope,
    ScopeStatus,
    SealedCredential,
    Server,
    ServiceAccountAuth,
    Work,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.model import Auth

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_Word = TypeVar("_Word", bound=StrEnum)


class DocumentError(ValueError):
    """A document cannot be read. `what` is its kind, `where` the path of the faulty key, `why` what is wrong there."""

    def __init__(self, what: str, where: str, why: str) -> None:
        super().__init__(f"{what}: {where}: {why}" if where else f"{what}: {why}")
        self.what = what
        self.where = where
        self.why = why


class UnknownSchemaError(DocumentError):
    """The head names a schema that this version does not know; nothing else of the snapshot may be interpreted."""


# ---- hashes ---------------------------------------------------------------------------------------------------------


def record_hash(raw: bytes) -> str:
    """Return the hex SHA-256 of a record's bytes as they lie in Redis."""
    return hashlib.sha256(raw).hexdigest()


def digest(record_hashes: Mapping[str, str]) -> str:
    """Return a snapshot's digest: hex SHA-256 over `uid TAB record-hash` lines, sorted bytewise, joined by newlines."""
    lines = sorted(f"{uid}\t{value}".encode() for uid, value in record_hashes.items())
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


# ---- times and JSON -------------------------------------------------------------------------------------------------


def format_time(moment: datetime) -> str:
    """Write a time as `2026-01-31T09:30:00Z`. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be published")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def encode_document(what: str, document: Mapping[str, object]) -> bytes:
    """Write canonical JSON. Raises DocumentError for values that JSON or UTF-8 cannot carry."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        raise DocumentError(what, "", "holds a value that JSON cannot carry") from None


def decode_object(what: str, raw: bytes) -> dict[str, Any]:
    """Read any JSON object, as it is. Raises DocumentError."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise DocumentError(what, "", "is not JSON") from None
    if not isinstance(document, dict):
        raise DocumentError(what, "", "is not a JSON object")
    return document


def _present(**values: object) -> dict[str, object]:
    """Return the values that are there, times as text."""
    return {
        key: format_time(value) if isinstance(value, datetime) else value
        for key, value in values.items()
        if value is not None
    }


class _Fields:
    """The members of one JSON object, taken out by key and type; every refusal names document and path."""

    __slots__ = ("_members", "_path", "_what")

    def __init__(self, what: str, members: Mapping[str, Any], path: str = "") -> None:
        self._what = what
        self._members = members
        self._path = path

    def wrong(self, key: str, why: str) -> DocumentError:
        return DocumentError(self._what, self._path + key, why)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def _get(self, key: str, kind: type, named: str) -> Any:
        if key not in self._members:
            raise self.wrong(key, "is missing")
        value = self._members[key]
        if type(value) is not kind:
            raise self.wrong(key, f"is not {named}")
        return value

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "a string")
        return value

    def name(self, key: str) -> str:
        """A string that must say something."""
        value = self.text(key)
        if not value:
            raise self.wrong(key, "is empty")
        return value

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if key in self._members else None

    def flag(self, key: str) -> bool:
        value: bool = self._get(key, bool, "true or false")
        return value

    def count(self, key: str) -> int:
        value: int = self._get(key, int, "a whole number")
        if value < 0:
            raise self.wrong(key, "is negative")
        return value

    def word(self, key: str, words: type[_Word]) -> _Word:
        value = self.text(key)
        try:
            return words(value)
        except ValueError:
            raise self.wrong(key, "is not one of " + ", ".join(words)) from None

    def time(self, key: str) -> datetime:
        value = self.text(key)
        if not _TIME.fullmatch(value):
            raise self.wrong(key, "is not a time like 2026-01-31T09:30:00Z")
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise self.wrong(key, "is a time that does not exist") from None
        if moment.year not in YEARS:
            raise self.wrong(key, f"is not between the years {YEARS[0]} and {YEARS[-1]}")
        return moment

    def maybe_time(self, key: str) -> datetime | None:
        return self.time(key) if key in self._members else None

    def texts(self, key: str) -> tuple[str, ...]:
        values: list[object] = self._get(key, list, "a list")
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "holds something that is not a string")
        return tuple(str(value) for value in values)

    def objects(self, key: str) -> list[_Fields]:
        values: list[object] = self._get(key, list, "a list")
        found = []
        for position, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.wrong(f"{key}[{position}]", "is not an object")
            found.append(_Fields(self._what, value, f"{self._path}{key}[{position}]."))
        return found

    def object(self, key: str) -> _Fields:
        return _Fields(self._what, self._get(key, dict, "an object"), f"{self._path}{key}.")


# ---- cluster records ------------------------------------------------------------------------------------------------


def record_to_dict(record: ClusterRecord) -> dict[str, object]:
    """Return the record as the JSON object that is published."""
    server, palette, access = record.server, record.palette, record.access
    location = {key: value for key in _LOCATION if (value := getattr(palette.location, key))}
    return _present(
        uid=record.uid,
        name=record.name,
        title=record.title,
        instance=record.instance,
        scope=record.scope.value,
        project=record.project and {"uid": record.project.uid, "name": record.project.name},
        server=server and _present(url=server.url, ca_data=server.ca_data, tls_server_name=server.tls_server_name),
        auth=record.auth and _auth_to_dict(record.auth),
        palette=_present(
            state=palette.state,
            health=palette.health,
            cloud_type=palette.cloud_type,
            created_at=palette.created_at,
            tags=list(palette.tags),
            location=location or None,
        ),
        access=_present(state=access.state.value, reason=access.reason, message=access.message, since=access.since),
        kubernetes_version=record.kubernetes_version,
        skip_metrics_lookup=record.skip_metrics_lookup,
        dashboard_url=record.dashboard_url,
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


def encode_record(record: ClusterRecord) -> bytes:
    """Raises DocumentError."""
    return encode_document("cluster record", record_to_dict(record))


def decode_record(raw: bytes) -> ClusterRecord:
    """Raises DocumentError."""
    what = "cluster record"
    fields = _Fields(what, decode_object(what, raw))
    access = fields.object("access")
    return ClusterRecord(
        uid=fields.name("uid"),
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
            reason=access.text("reason"),
            message=access.text("message"),
            since=access.time("since"),
        ),
        kubernetes_version=fields.maybe_text("kubernetes_version"),
        skip_metrics_lookup=fields.flag("skip_metrics_lookup"),
        dashboard_url=fields.maybe_text("dashboard_url"),
    )


def _project(fields: _Fields) -> Project:
    return Project(uid=fields.name("uid"), name=fields.text("name"))


def _server(fields: _Fields) -> Server:
    return Server(
        url=fields.name("url"),
        ca_data=fields.maybe_text("ca_data"),
        tls_server_name=fields.maybe_text("tls_server_name"),
    )


def _auth(fields: _Fields) -> Auth:
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


def _palette(fields: _Fields) -> PaletteFacts:
    place = fields.object("location") if "location" in fields else None
    location = {key: place.text(key) for key in _LOCATION if key in place} if place else {}
    return PaletteFacts(
        state=fields.text("state"),
        health=fields.text("health"),
        cloud_type=fields.text("cloud_type"),
        created_at=fields.maybe_time("created_at"),
        tags=fields.texts("tags"),
        location=Location(**location),
    )


def record_in_history(raw: bytes) -> dict[str, object]:
    """Return a former record for the history: its CA, by far the largest part, stands as the SHA-256 of the PEM.

    A record that cannot be read, or is nested so deeply that it cannot be written, leaves only the hash of its bytes.
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


# ---- credentials and memory -----------------------------------------------------------------------------------------


def encode_credential(credential: SealedCredential) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "credential",
        _present(
            issued_at=credential.issued_at,
            renew_at=credential.renew_at,
            expires_at=credential.expires_at,
            sealed=credential.sealed,
        ),
    )


def decode_credential(raw: bytes) -> SealedCredential:
    """Raises DocumentError."""
    fields = _Fields("credential", decode_object("credential", raw))
    return SealedCredential(
        issued_at=fields.time("issued_at"),
        renew_at=fields.time("renew_at"),
        expires_at=fields.maybe_time("expires_at"),
        sealed=fields.name("sealed"),
    )


def encode_work(work: Work) -> bytes:
    """Raises DocumentError."""
    retired = [_present(name=one.name, uid=one.uid, delete_at=one.delete_at) for one in work.retired]
    return encode_document(
        "work",
        _present(
            verified_at=work.verified_at,
            failures=work.failures,
            retry_at=work.retry_at,
            generation=work.generation,
            desired=work.desired,
            retired=retired,
        ),
    )


def decode_work(raw: bytes) -> Work:
    """Raises DocumentError."""
    fields = _Fields("work", decode_object("work", raw))
    return Work(
        verified_at=fields.maybe_time("verified_at"),
        failures=fields.count("failures"),
        retry_at=fields.maybe_time("retry_at"),
        generation=fields.maybe_text("generation"),
        desired=fields.maybe_text("desired"),
        retired=tuple(
            RetiredSecret(name=one.name("name"), uid=one.name("uid"), delete_at=one.time("delete_at"))
            for one in fields.objects("retired")
        ),
    )


def encode_scope(scope: ScopeStatus) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "scope", _present(name=scope.name, listed_at=scope.listed_at, error=scope.error, since=scope.since)
    )


def decode_scope(raw: bytes) -> ScopeStatus:
    """Raises DocumentError."""
    fields = _Fields("scope", decode_object("scope", raw))
    return ScopeStatus(
        name=fields.text("name"),
        listed_at=fields.maybe_time("listed_at"),
        error=fields.maybe_text("error"),
        since=fields.maybe_time("since"),
    )


def encode_issuer(issuer: IssuerMetadata) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "issuer",
        _present(
            issuer=issuer.issuer,
            authorization_endpoint=issuer.authorization_endpoint,
            token_endpoint=issuer.token_endpoint,
            jwks_uri=issuer.jwks_uri,
            key_ids=list(issuer.key_ids),
            algorithms=list(issuer.algorithms),
            fetched_at=issuer.fetched_at,
            valid_until=issuer.valid_until,
            error=issuer.error,
        ),
    )


def decode_issuer(raw: bytes) -> IssuerMetadata:
    """Raises DocumentError."""
    fields = _Fields("issuer", decode_object("issuer", raw))
    return IssuerMetadata(
        issuer=fields.name("issuer"),
        authorization_endpoint=fields.text("authorization_endpoint"),
        token_endpoint=fields.text("token_endpoint"),
        jwks_uri=fields.text("jwks_uri"),
        key_ids=fields.texts("key_ids"),
        algorithms=fields.texts("algorithms"),
        fetched_at=fields.maybe_time("fetched_at"),
        valid_until=fields.maybe_time("valid_until"),
        error=fields.maybe_text("error"),
    )


# ---- the head -------------------------------------------------------------------------------------------------------


def head_to_fields(head: Head) -> dict[str, str]:
    """Return the head as the fields of its Redis hash."""
    return {
        "schema": str(head.schema),
        "epoch": str(head.epoch),
        "version": str(head.version),
        "digest": head.digest,
        "mac": head.mac,
        "clusters": str(head.clusters),
        "complete": "1" if head.complete else "0",
        "changed_at": format_time(head.changed_at),
        "checked_at": format_time(head.checked_at),
        "writer": head.writer,
    }


def head_from_fields(members: Mapping[str, str]) -> Head:
    """Read the fields of the head's Redis hash. Raises UnknownSchemaError, DocumentError."""
    fields = _Fields("head", members)
    schema = _number(fields, "schema")
    if schema != SCHEMA:
        raise UnknownSchemaError("head", "schema", f"is not {SCHEMA}, the only one that this version knows")
    complete = _number(fields, "complete")
    if complete > 1:
        raise fields.wrong("complete", "is neither 0 nor 1")
    return Head(
        schema=schema,
        epoch=_number(fields, "epoch"),
        version=_number(fields, "version"),
        digest=fields.name("digest"),
        mac=fields.text("mac"),
        clusters=_number(fields, "clusters"),
        complete=bool(complete),
        changed_at=fields.time("changed_at"),
        checked_at=fields.time("checked_at"),
        writer=fields.text("writer"),
    )


def _number(fields: _Fields, key: str) -> int:
    value = fields.text(key)
    if not _NUMBER.fullmatch(value):
        raise fields.wrong(key, "is not a whole number")
    return int(value)
