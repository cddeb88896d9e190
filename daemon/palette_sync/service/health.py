"""The state of the daemon, for the HTTP endpoint and for the dump that SIGUSR2 writes into the log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from palette_sync import __version__
from palette_sync.assembly.store import utc_now
from palette_sync.core.documents import format_time, present
from palette_sync.core.leadership import Standing
from palette_sync.core.problems import find_problems, is_wrong, problem_document
from palette_sync.core.reasons import Reason
from palette_sync.service import signals
from palette_sync.telemetry.status import instance_document, member_documents, stranger_documents

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping
    from datetime import datetime

    from palette_sync.core.problems import Problem
    from palette_sync.runner import RunnerStatus
    from palette_sync.service.clock import Clock
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.membership import Membership
    from palette_sync.service.runners import Runners
    from palette_sync.service.supervisor import Supervisor
    from palette_sync.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_FLAGS = ("listing", "known", "resync", "allow_prune", "key", "peek")  # of a request that waits

DUMPED_DUE = 10  # entries of each instance's due queue that a dump shows


class Health:
    """Answers the probes of the endpoint (telemetry.endpoint.Probes)."""

    def __init__(
        self,
        configuration: ActiveConfiguration,
        runners: Runners,
        supervisor: Supervisor,
        membership: Membership,
        *,
        clock: Clock,
        metrics: Metrics,
        stopping: asyncio.Event,
    ) -> None:
        self._configuration = configuration
        self._runners = runners
        self._supervisor = supervisor
        self._membership = membership
        self._clock = clock
        self._metrics = metrics
        self._stopping = stopping
        self._started_at = utc_now()

    def not_live(self) -> list[str]:
        return [f"the runner of {name} has ended" for name in self._runners.ended()]

    def not_ready(self) -> list[str]:
        now = utc_now()
        waiting = not self._runners.statuses()
        keeps = {Reason.NOTHING_PUBLISHED, Reason.CUT_OFF, *([Reason.STORE_UNAVAILABLE] if waiting else [])}
        found = find_problems(self.document(now), {}, now=now)
        return [_line(problem) for problem in found if problem.reason in keeps]

    def metrics(self) -> tuple[bytes, str]:
        configuration = self._configuration
        self._runners.settle()
        company = self._membership.company
        outdated = self._membership.configuration_in_force
        self._metrics.members(
            len(company.members) if company else 1, outdated_since=outdated.outdated_since if outdated else None
        )
        for name in self._runners.statuses():
            self._metrics.keys_differ(name, self._standing(name) is Standing.KEYS_DIFFER)
        self._metrics.configuration(
            rejected=bool(configuration.rejected),
            loaded_at=configuration.loaded_at,
            orphaned=len(configuration.orphaned),
        )
        return self._metrics.render()

    def status(self) -> Mapping[str, object]:
        now = utc_now()
        document = self.document(now)
        problems = find_problems(document, self._runners.states(), now=now)
        found = [problem_document(problem) for problem in problems]
        return {**document, "ok": not is_wrong(problems), "problems": found}

    def document(self, now: datetime) -> dict[str, object]:
        """The status document without its problems."""
        self._runners.settle()
        configuration, company = self._configuration, self._membership.company
        state = "stopping" if self._stopping.is_set() else "running" if self._supervisor.ready else "starting"
        config = {
            "loaded_at": format_time(configuration.loaded_at),
            **self._in_force(),
            "rejected": configuration.rejected,
            **({"rejected_at": format_time(configuration.rejected_at)} if configuration.rejected_at else {}),
        }
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": format_time(self._started_at),
            "now": format_time(now),
            "state": state,
            "config": config,
            "orphaned": list(configuration.orphaned),
            "members": member_documents(company.members, me=self._membership.id) if company else [],
            "strangers": stranger_documents(company.strangers) if company else [],
            "instances": {name: self._instance(name, one, now) for name, one in self._runners.statuses().items()},
        }

    def _in_force(self) -> dict[str, object]:
        found = self._membership.configuration_in_force
        if found is None:
            return {}
        return present(fingerprint=found.configuration, outdated_since=found.outdated_since)

    def _instance(self, name: str, status: RunnerStatus, now: datetime) -> dict[str, object]:
        document = instance_document(status, now, next_listing=self._clock.next_run(f"discover:{name}"))
        standing, since = self._standing(name), self._membership.stands_since(name)
        return {**document, **present(standing=standing.value if standing else None, standing_since=since)}

    def _standing(self, name: str) -> Standing | None:
        decision = self._membership.decision(name)
        return decision.standing if decision else None

    def dump(self) -> None:
        """Log the state of everything, one event each."""
        log.info("state_dump", **self.status(), jobs=self._clock.next_runs())
        for runner in self._runners:
            pending = runner.mailbox.pending
            queue = [{"at": format_time(at), "cluster": uid} for at, uid in runner.due_queue(DUMPED_DUE)]
            log.info(
                "state_dump_instance",
                instance=runner.instance,
                mailbox={flag: getattr(pending, flag) for flag in _FLAGS},
                waiting_answers=len(pending.answers),
                due=queue,
            )
        for name, where in signals.tasks():
            log.info("state_dump_task", task=name, where=where)


def _line(problem: Problem) -> str:
    return f"{problem.instance}: {problem.text}" if problem.instance else problem.text
