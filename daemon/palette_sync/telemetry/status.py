"""The status of all runners as a document for programs (`/status.json`) and as one line for people. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.documents import format_time, present
from palette_sync.core.expiry import warning_due
from palette_sync.core.problems import UNLED
from palette_sync.core.text import visible
from palette_sync.runner.status import RunnerState, RunnerStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from palette_sync.core.leadership import Member
    from palette_sync.core.model import InstanceState

SILENT = timedelta(hours=1)
MOST_ID = 200  # characters of the id of a process that cannot be verified
SERVED = frozenset({RunnerState.LEADING, RunnerState.STANDBY})


def instance_document(
    status: RunnerStatus, now: datetime, *, next_listing: datetime | None = None
) -> dict[str, object]:
    """What one runner knows of its instance, without what it does not know. Times are RFC 3339, ages in seconds.

    `next_listing`: when Palette is listed next.
    """
    document: dict[str, object | None] = {
        "state": status.state.value,
        "detail": status.detail or None,
        "state_since": _time(status.state_since),
        "ready": status.read,
        "version": status.version or None,
        "complete": status.complete,
        "access": dict(status.access),
        "passes": status.passes,
        "busy_since": _time(status.busy_since),
        "attempted_at": _time(status.attempted_at),
        "succeeded_at": _time(status.succeeded_at),
        "success_age_s": _seconds(now - status.succeeded_at) if status.succeeded_at else None,
        "error": status.error,
        "failing_since": _time(status.failing_since),
        "cut_off_since": _time(status.cut_off_since),
        "rests_until": _time(status.rests_until),
        "scopes_failing": dict(status.scopes_failing) or None,
        "paused": status.paused or None,
        "prune_held": status.held,
        "prune_held_since": _time(status.held_since),
        "prune_held_until": _time(status.held_until),
        "prune_held_why": status.held_why or None,
        "first_lapse_at": _time(status.first_lapse),
        "first_lapse_s": _seconds(status.first_lapse - now) if status.first_lapse else None,
        "renewals_failing": status.renewals_failing,
        "wakes_at": _time(status.wakes_at),
        "refilled_at": _time(status.refilled_at),
        "next_listing_at": _time(next_listing),
        "api_key_name": status.key_name,
        "api_key_expires_at": _time(status.key_expires_at),
    }
    return {name: value for name, value in document.items() if value is not None}


def stored_document(
    state: InstanceState, now: datetime, *, holder: str | None, since: datetime | None, lease_known: bool
) -> dict[str, object]:
    """The same as far as Redis alone has it. `holder` leads `since` then; without one, and `lease_known`, nobody does.

    Who may not see the lease takes a snapshot for `unled` that nobody has confirmed for longer than `SILENT`.
    """
    status = RunnerStatus()
    status.take_over(state, now=now)
    document = instance_document(status, now)
    head, last_pass, key = state.head, state.status.get("pass"), state.status.get("api_key")
    checked_at = head.checked_at if head else None
    silent = checked_at is not None and now - checked_at > SILENT
    unled = holder is None and (lease_known or silent)
    found: dict[str, object | None] = {
        "state": UNLED if unled else "led" if holder else "unknown",
        "holder": holder,
        "state_since": _time(checked_at if unled else since),
        "detail": "nothing is in Redis" if head is None else None,
        "checked_at": _time(checked_at),
        "checked_age_s": _seconds(now - checked_at) if checked_at else None,
    }
    if isinstance(last_pass, dict) and last_pass.get("error"):
        found |= {"error": str(last_pass["error"]), "failing_since": last_pass.get("started_at")}
    if isinstance(key, dict):
        found |= {"api_key_name": key.get("name"), "api_key_expires_at": key.get("expires_at")}
    document.update({name: value for name, value in found.items() if value is not None})
    document.pop("passes", None)  # nobody counts them here
    return document


def member_documents(members: Collection[Member], *, me: str = "") -> list[dict[str, object]]:
    """The living processes, each with what it leads. `me` is the id of the process that reports."""
    return [
        present(
            id=one.id,
            host=one.id.split(":")[0],
            me=True if one.id == me else None,
            version=one.version,
            configuration=one.configuration,
            loaded_at=one.loaded_at,
            leads=one.leads,
            memory={name: list(share.memory) for name, share in sorted(one.shares.items()) if share.memory},
            draining=one.draining,
            since=one.since,
            seen_at=one.seen_at,
            keys=list(one.keys),
            outdated_since=one.outdated_since,
            rejected_at=one.rejected_at,
        )
        for one in sorted(members, key=lambda one: one.id)
    ]


def stranger_documents(strangers: Mapping[str, datetime]) -> list[dict[str, object]]:
    """The living processes whose seal keys are others, so that nothing else is known of them."""
    return [present(id=visible(name[:MOST_ID]), since=since) for name, since in sorted(strangers.items())]


def status_line(statuses: Mapping[str, RunnerStatus], now: datetime) -> str:
    """One line for `systemctl status`. It has times and no ages, because it is sent only when it changes."""
    if not statuses:
        return "no instance is configured"
    parts = []
    waiting = [f"{name}: {one.detail or one.state.value}" for name, one in statuses.items() if one.state not in SERVED]
    if waiting:
        parts.append("; ".join(waiting))
    access: Counter[str] = Counter()
    for one in statuses.values():
        access.update(one.access)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(access.items())) or "none published yet"
    parts.append(f"{len(statuses)} instances, {access.total()} clusters ({counts})")
    failing = [f"{name}: {one.error}" for name, one in statuses.items() if one.error]
    failing += [f"{name}: {one.held} drops held" for name, one in statuses.items() if one.held]
    parts += failing
    standby = sum(one.state is RunnerState.STANDBY for one in statuses.values())
    if standby:
        parts.append(f"standing by for {standby}")
    listing = [one for one in statuses.values() if one.state is not RunnerState.STANDBY]
    listed = [one.succeeded_at for one in listing if one.succeeded_at]
    if listed and len(listed) == len(listing):
        parts.append(f"all listed since {format_time(min(listed))}")
    lapses = [one.first_lapse for one in statuses.values() if one.first_lapse]
    if lapses:
        parts.append(f"first token ends {format_time(min(lapses))}")
    for name, one in statuses.items():
        if one.key_expires_at is not None and warning_due(one.key_expires_at - now) is not None:
            parts.append(f"{name}: the API key ends {format_time(one.key_expires_at)}")
    return "; ".join(parts)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


def _seconds(span: timedelta) -> int:
    return int(span.total_seconds())
