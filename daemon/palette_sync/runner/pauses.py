"""Publishing that operators paused clusters, or ended a pause."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from palette_sync.core.documents import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.model import ClusterRecord, Pause
    from palette_sync.reconcile.ongoing import Ongoing
    from palette_sync.runner.mailbox import PauseOrder
    from palette_sync.store.publisher import Publisher

log = structlog.get_logger(__name__)


async def publish_pauses(
    publisher: Publisher, orders: Sequence[PauseOrder], *, ongoing: Ongoing, now: datetime
) -> dict[str, ClusterRecord]:
    """Publish pauses and their ends. Return the records that were published, by uid. Raises StoreError.

    Work on a cluster that hangs ends before its pause is published.
    """
    state = publisher.state
    put: dict[str, ClusterRecord] = {}
    for order in orders:
        record = put.get(order.uid) or state.records.get(order.uid)
        if record is not None and state.trusted:
            put[order.uid] = replace(record, pause=order.pause)
    await ongoing.lanes.end([uid for uid, record in put.items() if record.pause is not None])
    if put:
        # A pause says nothing about the cluster: what was not confirmed before stays unconfirmed.
        await publisher.publish(now=now, put=put, unseen=publisher.unconfirmed_of(put.keys()))
    return put


def answer_pauses(orders: Sequence[PauseOrder], published: Mapping[str, ClusterRecord], *, instance: str) -> None:
    """Answer each order. Call it once the status of the runner shows what was published."""
    for order in orders:
        if not order.answer.done():
            order.answer.set_result(order.uid in published)
        if order.uid in published:
            _log_pause(instance, published[order.uid], order.pause)


def _log_pause(instance: str, record: ClusterRecord, pause: Pause | None) -> None:
    named = {"instance": instance, "cluster": record.uid, "name": record.name}
    if pause is None:
        log.info("cluster_resumed", **named)
    else:
        until = format_time(pause.until) if pause.until is not None else ""
        log.info("cluster_paused", **named, reason=pause.reason, until=until)
