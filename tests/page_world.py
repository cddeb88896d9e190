"""A state of the page in which everything that it can show is shown, with `text` in every field that is foreign."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builders import HOUR, MINUTE, NOW, OIDC, SERVER, by_uid, head, record, sealed_credential
from page_source import Source
from palette_sync.core.activity import Asked, Slot, slot_begin
from palette_sync.core.documents import format_time
from palette_sync.core.done import Done
from palette_sync.core.history import FormerVersion, VersionChange
from palette_sync.core.model import (
    Access,
    AccessState,
    ClusterMemory,
    InstanceState,
    Location,
    PaletteFacts,
    Project,
    RetiredSecret,
    ScopeStatus,
)
from palette_sync.core.reasons import Reason
from palette_sync.core.snapshot_codec import encode_record, record_in_history
from palette_sync.page.configuration import Configuration, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.model import ClusterRecord

PATHS = (
    "/",
    "/?name=web&sort=version&reverse=1",
    "/timeline",
    "/configuration",
    "/clusters/alpha/c1",
    "/clusters/alpha/c2",
)


class World(Source):
    """Its status document has foreign text too."""

    def __init__(self, state: InstanceState, text: str) -> None:
        super().__init__(state)
        self._text = text

    def document(self) -> Mapping[str, Any]:
        one = {
            "state": "leading",
            "ready": True,
            "detail": self._text,
            "error": self._text,
            "failing_since": format_time(NOW - HOUR),
            "succeeded_at": format_time(NOW - 2 * HOUR),
            "next_listing_at": format_time(NOW + MINUTE),
            "api_key_expires_at": format_time(NOW + 20 * HOUR),
        }
        config = {"rejected": [self._text], "rejected_at": format_time(NOW - MINUTE)}
        return {"state": "running", "config": config, "orphaned": ["former"], "instances": {"alpha": one}}


def world(text: str = "shop") -> World:
    palette = PaletteFacts(text, text, cloud_type=text, created_at=NOW, tags=(text,), location=Location(*[text] * 4))
    facts: dict[str, Any] = {
        "title": text,
        "project": Project("p-a", text),
        "palette": palette,
        "kubernetes_version": text,
        "server": replace(SERVER, url=f"https://{text}"),
        "dashboard_url": f"javascript:{text}",
    }
    records = by_uid(
        record("c1", f"web {text}", access=_access(AccessState.DEGRADED, Reason.FORBIDDEN, text), **facts),
        record("c2", f"db {text}", access=_access(AccessState.FAILED, Reason.UNREACHABLE, text), **facts),
        record(
            "c3", "edge", **facts | {"auth": replace(OIDC, issuer_url=text), "dashboard_url": "https://console.example"}
        ),
        record("c4", "new", auth=None, server=None, access=_access(AccessState.PENDING, Reason.WAITING, text)),
    )
    state = InstanceState(
        head=head(version=7),
        records=records,
        credentials={"c1": sealed_credential(), "c2": sealed_credential(expires_at=NOW - HOUR)},
        memory={
            "c1": ClusterMemory(
                NOW - HOUR,
                failures=2,
                retry_at=NOW + MINUTE,
                generation=text,
                retired=(RetiredSecret(text, "u", NOW + HOUR),),
                legacy=True,
                done=(Done("create", text, NOW - HOUR, ("Namespace", "ClusterRole", "Token")),),
            )
        },
        scopes={"p-b": ScopeStatus(text, NOW - HOUR, text, NOW - HOUR)},
        status={"held": {"c2": _held(text)}},
    )
    source = World(state, text)
    source.past = (
        [FormerVersion(7, NOW - MINUTE, {"c1": _was(records["c1"]), "gone": _was(record("gone", text)), "c2": None})],
        [
            VersionChange(6, NOW - HOUR, rotated=frozenset({"c1"})),
            VersionChange(7, NOW - MINUTE, put=frozenset({"c1", "c2"}), drop=frozenset({"gone"})),
        ],
    )
    begins = slot_begin(NOW) - HOUR
    quiet, failed = Slot(begins).with_pass(listed=True, failed=False, palette=9), Slot(begins + 5 * MINUTE)
    failed = failed.with_pass(listed=True, failed=True, error=text, changes={text: 2, "failed": 1})
    source.slots = {begins: quiet, failed.begins: failed.with_asked(Asked(NOW - HOUR, text, text))}
    title, tenant = Setting("title", text, text, default=False), Setting("tenant", None, "default", default=True)
    source.settings = Configuration(
        path=text,
        fingerprint="0123456789abcdef",
        loaded_at=NOW - HOUR,
        tables={"instances.alpha": [title, tenant]},
        rejected=(text,),
        rejected_at=NOW - MINUTE,
        exposed=(text,),
    )
    return source


def _access(state: AccessState, reason: Reason, text: str) -> Access:
    return Access(state, reason, text, since=NOW - 5 * HOUR)


def _was(one: ClusterRecord) -> dict[str, Any]:
    before = replace(one, access=_access(AccessState.READY, Reason.VERIFIED, ""))
    return dict(record_in_history(encode_record(before)))


def _held(text: str) -> dict[str, Any]:
    since, until = format_time(NOW - HOUR), format_time(NOW + HOUR)
    return {"since": since, "counted_from": since, "until": until, "reason": "Disappeared", "message": text}
