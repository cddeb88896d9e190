"""What must hold of one instance, whatever happens: judges what a reader sees in Redis, and what clusters were sent.

Nothing in it depends on palette-sync. It does no I/O, so that its own tests can show that it notices each violation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.contract_reader import View

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.contract_reader import Order, Snapshot

NO_ORDER = (0, 0)


@dataclass(frozen=True, slots=True)
class Write:
    """A request that may change objects of a cluster. `at` is Unix time in seconds; `process` 0 is not palette-sync."""

    at: float
    cluster: str
    process: int
    what: str


@dataclass(slots=True)
class Held:
    """A lease as it was seen: by which process, from when until when (Unix time in seconds)."""

    lease: str
    process: int
    since: float
    until: float


@dataclass
class Watch:
    """`existing` are the uids that Palette has; `quiet` those to which nothing happens after their first access.

    `slack`: seconds by which the log of an API server and the look at a lease may disagree about the time.
    """

    instance: str
    existing: set[str]
    note: Callable[[str], None]
    quiet: set[str] = field(default_factory=set)
    slack: float = 1.0
    view: View = field(default_factory=View)
    versions: int = 0
    forgotten: int = 0
    writes: int = 0
    shown_since: float | None = None  # when looks began to find what readers hold, on the monotonic clock
    lost: Order | None = None  # what Redis held before it lost something that it does not hold again yet
    _present: Order = NO_ORDER
    _contents: dict[Order, tuple[str, str]] = field(default_factory=dict)
    _writers: dict[int, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _leases: list[Held] = field(default_factory=list)
    _settled_at: float | None = None
    _may_write_until: float = 0.0

    @property
    def order(self) -> Order:
        """The newest that a reader holds."""
        return self.view.snapshot.order if self.view.snapshot is not None else NO_ORDER

    @property
    def current(self) -> bool:
        """Whether Redis holds what a reader holds, and the whole of it."""
        snapshot = self.view.snapshot
        return snapshot is not None and snapshot.complete and self._present == snapshot.order

    # What is published.

    def see_changes(self, changes: Mapping[Order, tuple[str, str]]) -> None:
        """Note the versions in the stream of changes, also those that were in force for a moment only."""
        for order, digests in changes.items():
            self._see_content(order, digests, in_force=False)

    def see(self, found: Snapshot) -> bool:
        """Judge what one look found, after the stream of changes. Returns whether the look before found another."""
        self._see_content(found.order, found.digests)
        writer = self._writers.setdefault(found.epoch, found.writer)
        if writer != found.writer:
            self.note(f"{self.instance}: {writer} and {found.writer} both wrote under epoch {found.epoch}")
        before = dict(self.view.records)
        if self.view.accept(found):
            self.versions += 1
            self.shown_since = None
            self._compare(before, found)
        if self.lost is not None and found.order >= self.lost:
            self.lost = None
        before_that, self._present = self._present, found.order
        return before_that != found.order

    def _see_content(self, order: Order, digests: tuple[str, str], *, in_force: bool = True) -> None:
        known = self._contents.get(order)
        if known is None:
            # A replica may name a version that its former master alone has shown.
            if in_force and order < self.order:
                self.note(f"{self.instance}: {_said(order)} was published after {_said(self.order)}")
            self._contents[order] = digests
        elif known != digests:
            self.note(f"{self.instance}: {_said(order)} has two contents")

    def _compare(self, before: Mapping[str, Any], found: Snapshot) -> None:
        lost = (before.keys() & self.existing) - self.view.records.keys()
        for uid in sorted(lost):
            self.note(f"{self.instance}: {_said(found.order)} lost {before[uid]['name']}, which Palette has")
        for uid, record in self.view.records.items():
            name = self._names.setdefault(uid, record["name"])
            if name != record["name"]:
                self.note(f"{self.instance}: {uid} was published as {name}, then as {record['name']}")

    def admit(self, order: Order, digests: tuple[str, str]) -> None:
        """Redis is about to hold this again: it is not new."""
        self._contents.setdefault(order, digests)

    # What Redis and the processes have lost.

    def losing(self) -> None:
        """Redis has lost something, or may have: until it holds as much again, memory must fill it."""
        self.lost = self.order if self.lost is None else max(self.lost, self.order)

    def forget(self, until: float) -> None:
        """Nobody is left who knows what was published: start as a new reader. Clusters may be written to `until`.

        Epochs may come again too: the clock of Redis seems to have gone back, and nobody knows which were used.
        """
        self.forgotten += 1
        self.view, self.lost = View(), None
        for known in (self._names, self._contents, self._writers):
            known.clear()
        self._may_write_until = until

    # Clusters.

    def see_lease(self, lease: str, process: int, *, since: float, until: float) -> bool:
        """Note who holds the lease: the look began at `until` and ended at `since`. Returns whether that is new."""
        last = self._leases[-1] if self._leases else None
        if last is not None and last.lease == lease:
            last.until = until
            return False
        self._leases.append(Held(lease, process, since, until))
        return True

    def settle(self, at: float) -> None:
        """Everything has its first access: from now on nothing has to be written to quiet clusters."""
        self._settled_at = at

    def see_write(self, write: Write) -> None:
        """Judge a request that may change objects of a cluster. The lease was looked at until after it."""
        self.writes += 1
        if not write.process:
            return
        holds = self._holder(write.at)
        if holds is not None and holds != write.process:
            self.note(f"{self.instance}: process {write.process} wrote to a cluster while {holds} led: {write.what}")
        after = self._settled_at is not None and write.at > max(self._settled_at, self._may_write_until)
        if write.cluster in self.quiet and after:
            self.note(
                f"{self.instance}: process {write.process} wrote to the quiet cluster {write.cluster}: {write.what}"
            )

    def _holder(self, at: float) -> int | None:
        """The only process that held the lease at a moment and for `slack` before; None if that is not known."""
        for held in reversed(self._leases):
            if held.since <= at - self.slack and at <= held.until:
                return held.process
        return None


def double_names(watches: list[Watch]) -> list[str]:
    """Names that readers see twice, over all instances."""
    names = [record["name"].casefold() for watch in watches for record in watch.view.records.values()]
    return sorted({name for name in names if names.count(name) > 1})


def _said(order: Order) -> str:
    return f"epoch {order[0]} version {order[1]}"
