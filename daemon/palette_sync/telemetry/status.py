"""The status of all runners as a document for programs (`/status.json`) and as one line for people. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from palette_sync.core.documents import format_time
from palette_sync.core.expiry import warning_due
from palette_sync.runner.status import RunnerState, RunnerStatus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

SERVED = frozenset({RunnerState.LEADING, RunnerState.STANDBY})


def instance_document(status: RunnerStatus, now: datetime) -> dict[str, object]:
    """What one runner knows of its instance, without what it does not know. Times are RFC 3339, ages in seconds."""
    document: dict[str, object | None] = {
        "state": status.state.value,
        "detail": status.detail or None,
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
        "scopes_failing": dict(status.scopes_failing) or None,
        "prune_held": status.held,
        "prune_held_since": _time(status.held_since),
        "prune_held_until": _time(status.held_until),
        "prune_held_why": status.held_why or None,
        "first_lapse_at": _time(status.first_lapse),
        "first_lapse_s": _seconds(status.first_lapse - now) if status.first_lapse else None,
        "renewals_failing": status.renewals_failing,
        "wakes_at": _time(status.wakes_at),
        "api_key_name": status.key_name,
        "api_key_expires_at": _time(status.key_expires_at),
    }
    return {name: value for name, value in document.items() if value is not None}


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
