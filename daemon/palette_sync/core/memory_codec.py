"""What the daemon keeps in Redis between passes without a version, as documents: memory, scopes and OIDC issuers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from palette_sync.core.documents import Fields, decode_object, encode_document, present
from palette_sync.core.done import Done
from palette_sync.core.model import ClusterMemory, IssuerMetadata, RetiredSecret, ScopeStatus
from palette_sync.core.ways import Way

if TYPE_CHECKING:
    from datetime import datetime


def encode_memory(memory: ClusterMemory) -> bytes:
    """Raises DocumentError."""
    retired = [present(name=one.name, uid=one.uid, delete_at=one.delete_at) for one in memory.retired]
    return encode_document(
        "work",
        present(
            verified_at=memory.verified_at,
            failures=memory.failures,
            retry_at=memory.retry_at,
            generation=memory.generation,
            desired=memory.desired,
            retired=retired,
            legacy=memory.legacy or None,
            way=memory.way.value if memory.way else None,
            validity_s=int(memory.validity.total_seconds()) if memory.validity is not None else None,
            recheck_at=memory.recheck_at,
            tried_at=memory.tried_at,
            hung=memory.hung or None,
            done=[present(verb=one.verb, reason=one.reason, at=one.at, kinds=list(one.kinds)) for one in memory.done]
            or None,
        ),
    )


def decode_memory(raw: bytes) -> ClusterMemory:
    """Raises DocumentError."""
    fields = Fields("work", decode_object("work", raw))
    return ClusterMemory(
        verified_at=fields.maybe_time("verified_at"),
        failures=fields.count("failures"),
        retry_at=fields.maybe_time("retry_at"),
        generation=fields.maybe_text("generation"),
        desired=fields.maybe_text("desired"),
        retired=tuple(
            RetiredSecret(name=one.name("name"), uid=one.name("uid"), delete_at=one.time("delete_at"))
            for one in fields.objects("retired")
        ),
        legacy=fields.maybe_flag("legacy"),
        way=fields.maybe_word("way", Way),
        validity=fields.maybe_seconds("validity_s"),
        recheck_at=fields.maybe_time("recheck_at"),
        tried_at=fields.maybe_time("tried_at"),
        hung=fields.maybe_flag("hung"),
        done=tuple(
            _shared(one.text("verb"), one.text("reason"), one.time("at"), one.texts("kinds"))
            for one in (fields.objects("done") if "done" in fields else ())
        ),
    )


@lru_cache(maxsize=1024)
def _shared(verb: str, reason: str, at: datetime, kinds: tuple[str, ...]) -> Done:
    """Clusters that were worked on together share the value."""
    return Done(verb, reason, at, kinds)


def encode_scope(scope: ScopeStatus) -> bytes:
    """Raises DocumentError."""
    return encode_document(
        "scope", present(name=scope.name, listed_at=scope.listed_at, error=scope.error, since=scope.since)
    )


def decode_scope(raw: bytes) -> ScopeStatus:
    """Raises DocumentError."""
    fields = Fields("scope", decode_object("scope", raw))
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
        present(
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
    fields = Fields("issuer", decode_object("issuer", raw))
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
