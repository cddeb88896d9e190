"""One pass over one instance, readable as a paragraph: discover, select, name, work on what is due, fold, publish.

Stale beats partial: whatever fails keeps the records it would have refreshed. Only the end of the pass prunes.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from palette_sync import kube, palette
from palette_sync.core.candidates import Candidates
from palette_sync.core.documents import format_time
from palette_sync.core.due import RENEW_AHEAD
from palette_sync.core.fold import AccessFailed, fold_memory, fold_record
from palette_sync.core.model import Discovery, OidcAuth
from palette_sync.core.prune import prune
from palette_sync.core.reasons import Reason
from palette_sync.core.scopes import held_before, scopes_after, whole
from palette_sync.core.select import select
from palette_sync.events import in_turns, unless
from palette_sync.fanout import fan_out
from palette_sync.reconcile.cluster import ClusterResult, ClusterWorker, DueCluster, IssuingSuspended
from palette_sync.reconcile.issuers import Issuers
from palette_sync.reconcile.ledger import Ledger
from palette_sync.reconcile.ports import PassOptions
from palette_sync.reconcile.publish import FinalWrite, Publishing
from palette_sync.reconcile.report import PassReport, drop_of, palette_change
from palette_sync.store.redis import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine

    from palette_sync.core.due import Candidate, Due
    from palette_sync.core.model import ClusterRecord, InstanceState
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.core.select import Selection
    from palette_sync.fanout import Outcome
    from palette_sync.reconcile.ports import Ports, Rows

log = structlog.get_logger(__name__)

UNIT_TIMEOUT = 130.0  # seconds that Palette's two calls for one cluster may take, waiting for its limits included


async def run_pass(
    ports: Ports, *, pass_id: str, options: PassOptions | None = None, rows: Rows | None = None
) -> tuple[PassReport, Rows]:
    """Run one pass and report on it. `rows`, in and out, are the clusters as Palette listed them last.

    Raises StoreError when the store cannot be read or written, and Interrupted when the process stops before any
    cluster was worked on.
    """
    one = _Pass(ports, pass_id, options or PassOptions(), rows or {})
    await one.load()
    await one.discover()
    one.select()
    await one.name()
    items = await one.find_due()
    try:
        await one.work_on(items)
        await one.fold_the_rest()
        await one.finish()
    except StoreError:
        one.keep_unpublished()
        raise
    return one.report(), one.rows_after()


@dataclass
class _Pass:
    """The state of one pass. Each method is one step; `run_pass` gives their order."""

    ports: Ports
    pass_id: str
    options: PassOptions
    rows: Rows
    started: float = field(default_factory=time.monotonic)
    before: InstanceState = field(init=False)
    records: dict[str, ClusterRecord] = field(init=False)
    discovery: Discovery = field(init=False)
    selection: Selection = field(init=False)
    names: dict[str, str] = field(init=False)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    after: dict[str, ClusterRecord] = field(default_factory=dict)
    skipped: int = 0
    news: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.now = self.ports.clock().replace(microsecond=0)
        self.policy = self.ports.policy
        self.instance = self.policy.instance
        self.requests = kube.Requests(self.ports.kube_recorder)
        publisher = self.ports.publisher
        self.publishing = Publishing(publisher, instance=self.instance, now=self.now) if publisher else None
        self.ledger = Ledger(self.instance, self.pass_id, dry_run=self.publishing is None)

    async def load(self) -> None:
        publisher = self.ports.publisher
        self.before = publisher.state if publisher else await self.ports.store.load(self.instance)
        self.records = dict(self.before.records)
        if not self.before.trusted:
            # Neither an address nor a credential of such a snapshot may be used; names and prune counts may.
            log.error("snapshot_refused", instance=self.instance, problems=self.before.problems[:5])
            self.records = {uid: replace(one, server=None, auth=None) for uid, one in self.records.items()}
        known = replace(self.before, records=self.records)
        self.view = Candidates(self.policy, known, self.rows, now=self.now)

    async def discover(self) -> None:
        if self.options.known_only:
            self.discovery = Discovery("", "", projects=None, listings=())
            return
        self.ports.progress("listing Palette", 0, 0)
        filters = self.policy.filters
        listing = palette.discover(
            self.ports.client,
            choose=filters.chooses_project,
            tenant_scope=not filters.exclude_tenant_scoped_clusters,
            include_virtual=filters.include_virtual,
            tenant=self.policy.tenant,
        )
        try:
            # A listing may be given up at any time: nothing was done yet.
            self.discovery = await unless(self.ports.stopping, listing, name=f"listing:{self.instance}")
        except palette.PaletteError as error:
            self.discovery = Discovery("", "", projects=None, listings=(), error=str(error))

    def select(self) -> None:
        self.selection = select(self.discovery, self.records, self.policy.filters)

    async def name(self) -> None:
        self.names = await self.ports.names.assign(
            self.ports.store,
            instance=self.instance,
            prefix=self.policy.name_prefix,
            clusters=self.selection.chosen.values(),
            published={uid: record.name for uid, record in self.records.items()},
        )
        self.names.update({uid: self.records[uid].name for uid in self.selection.kept})

    async def find_due(self) -> list[DueCluster]:
        chosen = [self.view.listed(cluster) async for cluster in in_turns(self.selection.chosen.values())]
        kept = [self.view.published(uid) for uid in sorted(self.selection.kept)]
        if self.options.known_only:
            chosen, kept = kept, []
        self.candidates = {candidate.cluster.uid: candidate for candidate in chosen}
        found = self.view.issuers_due(chosen)
        async for candidate in in_turns(chosen):
            if one := self.view.due(candidate, resync=self.options.resync, ahead=RENEW_AHEAD):
                found[candidate.cluster.uid] = one
        if self.discovery.tenant_uid:  # the credential works, so an admin kubeconfig can be had
            for candidate in kept:
                one = self.view.due(candidate, resync=self.options.resync, ahead=RENEW_AHEAD)
                if one and one.urgent:
                    found[candidate.cluster.uid] = one
        self.news = frozenset(uid for uid, one in found.items() if one.reason is Reason.STATE_CHANGED)
        return [
            self._item(candidate, found[candidate.cluster.uid])
            for candidate in (*chosen, *kept)
            if candidate.cluster.uid in found
        ]

    def _item(self, candidate: Candidate, found: Due) -> DueCluster:
        token = None
        if candidate.credential is not None:
            token = self.ports.open_token(candidate.cluster.uid, candidate.credential.sealed)
        return DueCluster(candidate, found, token)

    async def work_on(self, items: list[DueCluster]) -> None:
        """Work on all items concurrently; fold and publish each as it is done."""
        self.due = len(items)
        self.issuers = Issuers(self.before.issuers, now=self.now, refresh_interval=self.policy.oidc.refresh_interval)
        self.worker = ClusterWorker(
            policy=self.policy,
            client=self.ports.client,
            issuers=self.issuers,
            slots=asyncio.Semaphore(self.ports.concurrency),
            may_issue=self._may_issue,
            now=self.now,
            requests=self.requests,
            dry_run=self.publishing is None,
        )
        if not items:
            return
        done = 0

        def on_done(outcome: Outcome[DueCluster, ClusterResult]) -> None:
            nonlocal done
            done += 1
            self.ports.progress("working on clusters", done, len(items))
            self._fold(outcome)

        self.ports.progress("working on clusters", 0, len(items))
        async with _first_error(), asyncio.TaskGroup() as group:
            if self.publishing is not None:
                group.create_task(self.publishing.run(), name=f"publish:{self.instance}")
            try:
                await self._until_late(
                    fan_out(
                        items,
                        self.worker,
                        # Twice the places: half may wait for Palette's rate limit while the others work.
                        limit=asyncio.Semaphore(2 * self.ports.concurrency),
                        timeout=UNIT_TIMEOUT + self.policy.cluster_timeout.total_seconds(),
                        stopping=self.ports.stopping,
                        done=on_done,
                        name=f"cluster:{self.instance}",
                    ),
                    group,
                )
                self.skipped += len(items) - done
            finally:
                if self.publishing is not None:
                    self.publishing.close()

    async def _until_late(self, work: Coroutine[Any, Any, object], group: asyncio.TaskGroup) -> None:
        """Wait for `work`, or cancel what is left of it once it is late; what is done was folded already."""
        if self.ports.late is None:
            await work
            return
        working = group.create_task(work, name=f"work:{self.instance}")
        lateness = group.create_task(self.ports.late.wait(), name=f"late:{self.instance}")
        await asyncio.wait({working, lateness}, return_when=asyncio.FIRST_COMPLETED)
        lateness.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})

    def _may_issue(self) -> bool:
        away = self.publishing is not None and self.publishing.away
        return not away and self.ports.may_issue()

    def _fold(self, outcome: Outcome[DueCluster, ClusterResult]) -> None:
        """Fold one outcome into record, credential and memory, and hand them to the publisher."""
        item = outcome.key
        uid = item.candidate.cluster.uid
        if outcome.skipped or isinstance(outcome.error, IssuingSuspended):
            self.skipped += 1
            return
        worked = outcome.value or ClusterResult(_verdict_of(outcome.error, item, self.policy))
        verdict = worked.verdict
        revoked = worked.revoked or (isinstance(verdict, AccessFailed) and verdict.dead) or not self.before.trusted
        record = self._record(item.candidate, worked, alive=self._alive(item.candidate, worked, revoked=revoked))
        self.after[uid] = record
        credential = item.candidate.credential
        memory = fold_memory(
            item.candidate.memory,
            verdict,
            key=item.candidate.key,
            desired=item.candidate.desired,
            now=self.now,
            expires_at=credential.expires_at if credential else None,
        )
        if self.publishing is not None:
            self.publishing.add(uid, record=record, credential=worked.credential, revoked=revoked, memory=memory)
        self.ledger.worked(item, self.records.get(uid), record, worked)

    def _alive(self, candidate: Candidate, worked: ClusterResult | None, *, revoked: bool = False) -> bool:
        if worked is not None and worked.credential is not None:
            return True
        return not revoked and candidate.credential is not None and candidate.credential.alive(self.now)

    def _record(self, candidate: Candidate, worked: ClusterResult | None, *, alive: bool) -> ClusterRecord:
        previous = candidate.record
        record = fold_record(
            candidate.cluster,
            key=candidate.key,
            name=self.names[candidate.cluster.uid],
            previous=previous,
            verdict=worked.verdict if worked else None,
            credential_alive=alive,
            presentation=self.policy.presentation,
            now=self.now,
        )
        if candidate.cluster.uid in self.selection.kept and previous is not None:
            # It was not listed now: what Palette says of it stays as it was published.
            return replace(record, title=previous.title, dashboard_url=previous.dashboard_url)
        return record

    async def fold_the_rest(self) -> None:
        """Records of chosen clusters on which nothing was due may still differ in what Palette says of them."""
        async for uid, candidate in in_turns(self.candidates.items()):
            if uid in self.after:
                continue
            record = self._record(candidate, None, alive=self._alive(candidate, None))
            if uid in self.news and candidate.record is not None:
                # Nobody looked at the cluster, so its new state must be news to the next pass as well.
                was = candidate.record.palette
                record = replace(record, palette=replace(record.palette, state=was.state, health=was.health))
            self.after[uid] = record
            before = self.before.records.get(uid)
            if record == before:
                continue
            if self.publishing is not None:
                self.publishing.add(uid, record=record)
            self.ledger.changed(palette_change(before, record))

    async def finish(self) -> None:
        """Prune, and write what only a whole pass knows."""
        self.pruning = prune(
            self.selection,
            total=len(self.records),
            missed=held_before(self.before.status),
            allow=self.options.allow_prune,
        )
        for uid, reason in self.pruning.drop.items():
            self.ledger.changed(drop_of(self.records[uid], reason))
        held = sorted(self.pruning.held.keys() & self.selection.disappeared)
        self.ledger.held([(self.records[uid], self.pruning.held[uid]) for uid in held], of=len(self.records))
        first_whole = (
            whole(self.discovery) and not self.skipped and not (self.before.head and self.before.head.complete)
        )
        scopes = {} if self.options.known_only else scopes_after(self.before.scopes, self.discovery, self.now)
        living = self.after.keys() | (self.records.keys() - self.pruning.drop.keys())
        if self.publishing is None:
            return
        await self.publishing.finish(
            FinalWrite(
                drop=self.pruning.drop.keys(),
                complete=True if first_whole else None,
                memory=dict.fromkeys(self.before.memory.keys() - living),
                scopes=scopes,
                issuers={**self._unused_issuers(living), **self.issuers.changed},
                status=self._status(),
            )
        )

    def _unused_issuers(self, living: Collection[str]) -> dict[str, None]:
        """Metadata that no cluster's access refers to any more: clusters go, and some had an issuer of their own."""
        if self.options.known_only or not self.before.issuers:
            return {}
        auths = (self.after.get(uid, self.records.get(uid)) for uid in living)
        used = {one.auth.issuer_url for one in auths if one is not None and isinstance(one.auth, OidcAuth)}
        return dict.fromkeys(self.before.issuers.keys() - used)

    def keep_unpublished(self) -> None:
        if self.publishing is not None:
            self.ports.keep(self.publishing.unpublished)

    def rows_after(self) -> Rows:
        kept = {uid: row for uid, row in self.rows.items() if uid in self.selection.kept}
        return {**kept, **self.selection.chosen}

    def _status(self) -> dict[str, object]:
        """For people. A pass over known clusters leaves what the last listing told of itself."""
        report = self.report()
        told = {
            "id": self.pass_id,
            "started_at": format_time(self.now),
            "duration_s": round(report.duration_s, 3),
            "due": report.due,
            "error": report.error or "",
            "problems": list(report.problems),
        }
        return {
            "pass": self.before.status.get("pass", told) if self.options.known_only else told,
            "access": dict(report.access),
            "held": dict(self.pruning.held),
            **self.ports.facts(),
        }

    def report(self) -> PassReport:
        kept = [self.records[uid] for uid in self.selection.kept if uid not in self.after]
        access = Counter(record.access.state.value for record in (*self.after.values(), *kept))
        before = self.before.head.version if self.before.head else 0
        return PassReport(
            instance=self.instance,
            pass_id=self.pass_id,
            started_at=self.now,
            duration_s=time.monotonic() - self.started,
            version_before=before,
            version=self.ports.publisher.version if self.ports.publisher else before,
            discovered=sum(len(listing.clusters) for listing in self.discovery.listings),
            clusters=len(self.after) + len(kept),
            due=self.due,
            access=dict(sorted(access.items())),
            changes=self.ledger.changes,
            problems=tuple(f"{one.name}: {one.error}" for one in self.discovery.listings if one.error),
            notes=self._notes(),
            held=sum(uid in self.selection.disappeared for uid in self.pruning.held),
            skipped=self.skipped,
            palette_requests=self.ports.client.requests,
            kube_requests=self.requests.total,
            error=self.discovery.error,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [
            "the API key may not list tenant-scoped clusters (NotPermitted)"
            for listing in self.discovery.listings
            if listing.not_permitted
        ]
        if self.selection.unresolved:
            notes.append(f"{len(self.selection.unresolved)} clusters left alone: their project is unknown")
        if self.skipped:
            notes.append(f"{self.skipped} clusters were due and not worked on; the next pass takes them")
        if not self.before.trusted:
            notes.append("the snapshot in Redis was refused (digest or mac does not fit); everything was read anew")
        return tuple(notes)


@asynccontextmanager
async def _first_error() -> AsyncIterator[None]:
    """Let the first error leave a TaskGroup as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _verdict_of(error: Exception | None, item: DueCluster, policy: InstancePolicy) -> AccessFailed:
    if isinstance(error, TimeoutError):
        return AccessFailed(Reason.UNREACHABLE, f"no answer within {policy.cluster_timeout.total_seconds():g} s")
    log.error("unexpected_error", cluster=str(item), error=type(error).__name__, exc_info=error)
    return AccessFailed(Reason.INTERNAL_ERROR, f"{type(error).__name__}; the log has the traceback")
