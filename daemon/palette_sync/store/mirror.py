"""What Redis holds as this process left it: the state that was read, with every write that arrived applied to it.

A pass need not read the whole instance again to know what the pass before it published. The documents are decoded from
the bytes that were written, so a mirror shows what a reader would see. No I/O.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from palette_sync.core.documents import decode_object
from palette_sync.core.memory_codec import decode_issuer, decode_memory, decode_scope
from palette_sync.core.model import InstanceState
from palette_sync.core.snapshot_codec import decode_credential, decode_record
from palette_sync.store.signed_value import content_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from typing import TypeVar

    from palette_sync.core.model import ClusterRecord, Head
    from palette_sync.store.batches import Batch, UnversionedEdits

    T = TypeVar("T")


class Mirror:
    """Starts with what was read. `state` is a value: later writes do not change it."""

    def __init__(self, found: InstanceState, *, published: bool) -> None:
        self._head = found.head
        self._trusted = found.trusted
        self._problems = found.problems
        # Without a published version the records do not count: the first version deletes them.
        self._records = dict(found.records) if published else {}
        self._credentials = dict(found.credentials) if published else {}
        self._memory = dict(found.memory)
        self._scopes = dict(found.scopes)
        self._issuers = dict(found.issuers)
        self._status = found.status

    @property
    def state(self) -> InstanceState:
        return InstanceState(
            head=self._head,
            trusted=self._trusted,
            records=dict(self._records),
            credentials=dict(self._credentials),
            memory=dict(self._memory),
            scopes=dict(self._scopes),
            issuers=dict(self._issuers),
            status=self._status,
            problems=self._problems,
        )

    def apply_version(self, head: Head, batch: Batch, edits: UnversionedEdits, *, signed: bool) -> None:
        """Apply a version that arrived."""
        self._head = head
        if signed:
            self._trusted, self._problems = True, ()
        _edit(self._records, {**batch.put, **dict.fromkeys(batch.drop)}, decode_record)
        _edit(self._credentials, {**batch.rotated, **dict.fromkeys(batch.drop)}, decode_credential)
        self._apply(edits, dropped=batch.drop)

    @property
    def head(self) -> Head | None:
        return self._head

    @property
    def trusted(self) -> bool:
        return self._trusted

    def record(self, uid: str) -> ClusterRecord | None:
        return self._records.get(uid)

    def apply_unversioned(self, edits: UnversionedEdits, *, checked_at: datetime | None, checked_mac: str) -> None:
        """Apply a write without a version that arrived. `checked_at` None: it left that field alone."""
        if self._head is not None and checked_at is not None:
            self._head = replace(self._head, checked_at=checked_at, checked_mac=checked_mac)
        self._apply(edits)

    def _apply(self, edits: UnversionedEdits, *, dropped: Iterable[str] = ()) -> None:
        _edit(self._memory, {**dict.fromkeys(dropped), **edits.memory}, lambda raw: decode_memory(content_of(raw)))
        _edit(self._scopes, edits.scopes, lambda raw: decode_scope(content_of(raw)))
        _edit(self._issuers, edits.issuers, lambda raw: decode_issuer(content_of(raw)))
        if edits.status:
            self._status = decode_object("status", content_of(edits.status))


def _edit(members: dict[str, T], edits: Mapping[str, bytes | None], decode: Callable[[bytes], T]) -> None:
    for name, raw in edits.items():
        if raw is None:
            members.pop(name, None)
        else:
            members[name] = decode(raw)
