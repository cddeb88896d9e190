"""What a request to the daemon asks of one cluster, as the JSON in the field `arguments` of the request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from palette_sync.core.documents import DocumentError, Fields, decode_object, encode_document, present
from palette_sync.core.model import UID, Pause
from palette_sync.core.pause import LONGEST_TEXT
from palette_sync.core.text import one_line

if TYPE_CHECKING:
    from datetime import datetime

LONGEST_PAUSE = timedelta(days=366)
_WHAT = "request"


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """`revoke`: of `rotate`, also end the former token. `reason` and `lasts`: of `pause`; None = until resumed."""

    uid: str
    revoke: bool = False
    reason: str = ""
    lasts: timedelta | None = None

    def pause(self, *, by: str, now: datetime) -> Pause:
        """The pause that is asked for, in the form in which it is published."""
        since = now.replace(microsecond=0)
        return Pause(
            reason=one_line(self.reason, LONGEST_TEXT),
            by=one_line(by, LONGEST_TEXT),
            since=since,
            until=None if self.lasts is None else since + self.lasts,
        )


def encode_cluster_request(request: ClusterRequest) -> str:
    """Raises DocumentError."""
    seconds = None if request.lasts is None else int(request.lasts.total_seconds())
    document = present(uid=request.uid, revoke=request.revoke or None, reason=request.reason or None, for_s=seconds)
    return encode_document(_WHAT, document).decode()


def decode_cluster_request(text: str) -> ClusterRequest:
    """Raises DocumentError."""
    fields = Fields(_WHAT, decode_object(_WHAT, text.encode()))
    lasts = fields.maybe_seconds("for_s")
    if lasts is not None and not timedelta(0) < lasts <= LONGEST_PAUSE:
        raise fields.wrong("for_s", f"is not a time of up to {LONGEST_PAUSE.days} days")
    uid = fields.text("uid")
    if not UID.fullmatch(uid):
        raise DocumentError(_WHAT, "uid", "is not a uid")
    return ClusterRequest(
        uid=uid, revoke=fields.maybe_flag("revoke"), reason=fields.maybe_text("reason") or "", lasts=lasts
    )
