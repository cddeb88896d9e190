"""What came of a request about one cluster, in words and for programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.core.documents import present
from palette_sync.core.due import overdue
from palette_sync.core.durations import time_for_people
from palette_sync.core.model import AccessState, OidcAuth
from palette_sync.core.pause import pause_document, pause_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from palette_sync.core.model import ClusterMemory, ClusterRecord, InstanceState, SealedCredential
    from palette_sync.core.pause import PauseInForce


@dataclass(frozen=True, slots=True)
class ClusterAnswer:
    """`done`: what was asked for has been done. `text` is one line for people, `document` is for programs."""

    done: bool
    text: str
    document: dict[str, object]


@dataclass(frozen=True, slots=True)
class ClusterNow:
    """One published cluster as it is now."""

    record: ClusterRecord
    credential: SealedCredential | None
    memory: ClusterMemory | None
    version: int
    now: datetime

    @classmethod
    def find(cls, state: InstanceState | None, uid: str, now: datetime) -> ClusterNow | None:
        """None if no such cluster is published, or the snapshot does not verify."""
        record = state.records.get(uid) if state is not None and state.trusted else None
        if state is None or record is None:
            return None
        version = state.head.version if state.head is not None else 0
        return cls(record, state.credentials.get(uid), state.memory.get(uid), version, now)

    @property
    def pause(self) -> PauseInForce | None:
        return pause_of(self.record, self.now)

    def answer(self, text: str, *, done: bool) -> ClusterAnswer:
        record, credential, pause = self.record, self.credential, self.pause
        document = present(
            uid=record.uid,
            name=record.name,
            state=record.access.state.value,
            reason=record.access.reason.value,
            message=record.access.message or None,
            version=self.version,
            issued_at=credential.issued_at if credential else None,
            renew_at=credential.renew_at if credential else None,
            expires_at=credential.expires_at if credential else None,
            pause=pause and pause_document(pause),
        )
        return ClusterAnswer(done, f"{record.name}: {text}", document)


def refusal(cluster: ClusterNow, *, rotate: bool) -> ClusterAnswer | None:
    """Why a cluster cannot be looked at, or get a new token, now; None if it can."""
    if (pause := cluster.pause) is not None:
        return cluster.answer(f"{pause.text}; {_how_to_resume(cluster, pause)}", done=False)
    if not rotate:
        return None
    if isinstance(cluster.record.auth, OidcAuth):
        return cluster.answer("users log in with their own OIDC token, so there is no token to rotate", done=False)
    if cluster.credential is None:
        text = f"there is no token to rotate yet ({_access(cluster)}); `palette-sync resync` tries now"
        return cluster.answer(text, done=False)
    return None


def looked(cluster: ClusterNow, *, since: datetime, effects: Collection[str]) -> ClusterAnswer:
    """The answer to a resync of one cluster, by a pass that began at `since` and had these effects on it."""
    if not _worked_on(cluster.memory, since):
        return cluster.answer(f"{_access(cluster)}; {_why_not(cluster)}", done=False)
    changed = ", ".join(effects) or "nothing changed"
    done = cluster.record.access.state is AccessState.READY
    return cluster.answer(f"{_access(cluster)}; {changed}; version {cluster.version}", done=done)


def rotated(cluster: ClusterNow, *, issued: bool, revoke: bool, since: datetime) -> ClusterAnswer:
    """The answer to a rotation. `issued`: a new token was published by a pass that began at `since`."""
    credential, memory = cluster.credential, cluster.memory
    if not issued or credential is None:
        why = "" if _worked_on(memory, since) else f"; {_why_not(cluster)}"
        return cluster.answer(f"no new token; the former one stays published: {_access(cluster)}{why}", done=False)
    end = f"ends at {time_for_people(credential.expires_at)}" if credential.expires_at else "never ends"
    text = f"a new token is published (version {cluster.version}); it {end}"
    if not revoke:
        return cluster.answer(f"{text}; the former one lives until its own end", done=True)
    if overdue(memory, cluster.now):
        text += f"; the former one is not revoked yet ({_access(cluster)}), and palette-sync tries again"
        return cluster.answer(text, done=False)
    return cluster.answer(f"{text}; the former one is revoked", done=True)


def paused(cluster: ClusterNow) -> ClusterAnswer:
    """The answer to a pause that is published."""
    pause, credential = cluster.pause, cluster.credential
    text = pause.text if pause is not None else "the pause has ended already"
    if pause is not None and credential is not None and credential.expires_at and pause.holds_at(credential.expires_at):
        text += f"; its token is not renewed meanwhile and lapses at {time_for_people(credential.expires_at)}"
    return cluster.answer(text, done=True)


def resumed(cluster: ClusterNow, *, was_paused: bool) -> ClusterAnswer:
    """The answer to the end of a pause that is published."""
    if (pause := cluster.pause) is not None:
        return cluster.answer(_how_to_resume(cluster, pause), done=False)
    return cluster.answer(f"{'resumed' if was_paused else 'it was not paused'}; {_access(cluster)}", done=True)


def _how_to_resume(cluster: ClusterNow, pause: PauseInForce) -> str:
    if pause.tagged:
        return "remove the tag palette-sync:pause in Palette; the next listing sees that"
    return f"run `palette-sync resume {cluster.record.name}` first"


def _worked_on(memory: ClusterMemory | None, since: datetime) -> bool:
    moments = (memory.verified_at, memory.tried_at) if memory is not None else ()
    return any(one is not None and one >= since for one in moments)


def _why_not(cluster: ClusterNow) -> str:
    access, memory = cluster.record.access, cluster.memory
    if access.state is AccessState.PENDING:
        return "there is nothing to look at yet"
    if memory is not None and memory.hung:
        return "its API server has not answered yet, and palette-sync goes on asking"
    return "it was not looked at: either its API server is silent, or its project cannot be listed"


def _access(cluster: ClusterNow) -> str:
    access = cluster.record.access
    message = f": {access.message}" if access.message else ""
    return f"{access.state.value} ({access.reason}){message}"
