"""The one wide log line of each pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from palette_sync.reconcile.report import PassReport

log = structlog.get_logger(__name__)


def log_finished(report: PassReport, *, listed: bool) -> None:
    """A warning if something failed. `listed`: the pass listed Palette."""
    fields = {
        "instance": report.instance,
        "pass_id": report.pass_id,
        "action": "list" if listed else "known",
        "version": report.version,
        "clusters": report.clusters,
        "due": report.due,
        "changed": len(report.changes),
        "access": dict(report.access),
        "skipped": report.skipped,
        "postponed": len(report.postponed),
        "silent": report.silent,
        "held": report.held,
        "palette_requests": report.palette_requests,
        "kube_requests": report.kube_requests,
        "reason": report.error or "; ".join(report.problems),
        "duration_s": round(report.duration_s, 3),
    }
    if report.failed:
        log.warning("pass_finished", **fields)
    else:
        log.info("pass_finished", **fields)
