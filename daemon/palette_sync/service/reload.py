"""A reload: the configuration file is read again and applied to the running instances, or rejected as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from palette_sync.assembly.instance import reconfigured
from palette_sync.assembly.store import StartError, utc_now
from palette_sync.config import ConfigError, load
from palette_sync.store.seal import SealKeyError
from palette_sync.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import Settings
    from palette_sync.runner import InstanceRuntime
    from palette_sync.service.configuration import ActiveConfiguration
    from palette_sync.service.runners import Runners
    from palette_sync.service.supervisor import Supervisor

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """`problems`: why the configuration was rejected; empty if it was applied. `notes`: what an operator may not have
    meant, although it was applied.
    """

    problems: list[str]
    notes: list[str] = field(default_factory=list)


class Reloader:
    """Runs one reload at a time. Passes that are in flight go on under the configuration that they began with."""

    def __init__(self, configuration: ActiveConfiguration, runners: Runners, supervisor: Supervisor) -> None:
        self._configuration = configuration
        self._runners = runners
        self._supervisor = supervisor
        self._lock = asyncio.Lock()
        self._asked = 0
        self._answered = 0
        self._allow_prune = False
        self._notes: list[str] = []

    async def reload(self, *, allow_prune: bool = False) -> Reloaded:
        """Apply the configuration as the file is now.

        It is rejected if its filters deselect more published clusters than the prune guard lets go at once, unless
        somebody who asks for it allows that (`allow_prune`). Everybody who asks while a reload is under way shares the
        next one: `palette-sync reload` asks once for each instance.
        """
        asked = self._asked = self._asked + 1
        self._allow_prune |= allow_prune
        configuration = self._configuration
        async with self._lock:
            if self._answered < asked:
                self._answered = self._asked
                allowed, self._allow_prune = self._allow_prune, False
                with self._supervisor.reload_announced():
                    await self._load_and_apply(allow_prune=allowed)
            return Reloaded(configuration.rejected, self._notes)

    async def _load_and_apply(self, *, allow_prune: bool) -> None:
        configuration = self._configuration
        self._notes = []
        try:
            settings = await asyncio.to_thread(load, configuration.path)
            shared = reconfigured(configuration.shared, settings)
            runtimes = self._runners.runtimes(shared)
            reviews = self._runners.review(runtimes)
            refusals = [f"instances.{name}: {one.refusal}" for name, one in reviews.items() if one.refusal]
            configuration.rejected = [] if allow_prune else refusals
            self._notes = [f"instances.{name}: {line}" for name, one in reviews.items() for line in one.unmatched]
        except (ConfigError, StartError, SealKeyError) as error:
            configuration.rejected = getattr(error, "problems", [str(error)])
        except Exception as error:  # no content of a file may end the daemon
            log.exception("unexpected_error", error=type(error).__name__)
            configuration.rejected = [f"{configuration.path}: {type(error).__name__}; the log has the traceback"]
        if configuration.rejected:
            configuration.rejected_at = configuration.rejected_at or utc_now()
            log.error("config_rejected", problems=configuration.rejected, reason="the running configuration stays")
        else:
            if self._notes:
                log.warning("filters_match_nothing", patterns=self._notes)
            self._apply(shared, runtimes)
            configuration.keep_layers()
            configuration.rejected_at = None
            await configuration.find_orphaned()

    def _apply(self, shared: Shared, runtimes: Mapping[str, InstanceRuntime]) -> None:
        old, new = self._configuration.shared.settings, shared.settings
        self._configuration.shared = shared
        configure_logging(level=new.service.log_level, style=new.service.log_format)
        shared.store.use(shared.sealer)
        self._configuration.log_exposed_secrets()
        removed, added = old.instances.keys() - new.instances.keys(), new.instances.keys() - old.instances.keys()
        changed = changed_instances(old, new)
        for name in removed:
            self._runners.remove(name)
        for name in added:
            self._runners.add(runtimes[name], new.instances[name])
        for name in new.instances.keys() - added:
            # Also where nothing changed: its share of `concurrency` or the content of a file may be another.
            self._runners.configure(runtimes[name], new.instances[name], changed=name in changed)
        self._configuration.loaded_at = utc_now()
        log.info(
            "config_reloaded",
            added=sorted(added),
            removed=sorted(removed),
            changed=sorted(changed),
            restart_needed=restart_needed(old, new),
        )


def changed_instances(old: Settings, new: Settings) -> set[str]:
    """The instances in both configurations whose settings differ. `[seal]` and `[service]` concern all of them."""
    both = new.instances.keys() & old.instances.keys()
    if (old.seal, old.service) != (new.seal, new.service):
        return both
    return {name for name in both if old.instances[name] != new.instances[name]}


def restart_needed(old: Settings, new: Settings) -> list[str]:
    """The tables of the configuration that changed, and that only a restart applies."""
    return [name for name in ("redis", "http", "otel") if getattr(old, name) != getattr(new, name)]
