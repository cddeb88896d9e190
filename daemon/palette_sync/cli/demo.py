"""`palette-sync demo`: the main features, step by step, with the simulator and an embedded Valkey."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.rule import Rule
from rich.text import Text

from palette_sync.cli.called import called
from palette_sync.cli.console import SafeConsole, print_json, print_problems
from palette_sync.cli.exits import Exit
from palette_sync.cli.pass_report import print_report
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from rich.console import Console

    from palette_sync.assembly.instance import Shared
    from palette_sync.config import Settings
    from palette_sync.reconcile.ports import PassOptions
    from palette_sync.reconcile.report import PassReport
    from palette_sync.simulator import Simulator

INSTANCES, PROJECTS, CLUSTERS = 2, 6, 24
SHORT_LIFE = 12  # seconds
# Verifications are spread over time. None must become due in the middle of the demo.
QUIET = {"PALETTE_SYNC_DEFAULTS__VERIFY_INTERVAL": "3650d"}
# The kinds of clusters that cannot be had as they are.
WITHOUT_ACCESS = {
    "eks-authenticator": Reason.NEEDS_AWS_CREDENTIALS,
    "eks-cli": Reason.NEEDS_AWS_CREDENTIALS,
    "gke-plugin": Reason.NEEDS_GOOGLE_CREDENTIALS,
    "aks-kubelogin": Reason.NEEDS_AZURE_CREDENTIALS,
    "aks-expired": Reason.ADMIN_CREDENTIAL_REFUSED,
    "no-file": Reason.KUBECONFIG_NOT_READY,
    "imported": Reason.IMPORTED,
}
SECONDS_PER_CLUSTER_IN_THE_PLUGIN = 2.04  # measured: the in-process plugin takes 102 s for 50 clusters


def run(*, keep: bool, as_json: bool) -> Exit:
    """Exit 0: all checks passed; 1: a check failed, or the embedded Valkey server cannot start."""
    from palette_sync.store.errors import StoreError

    try:
        return asyncio.run(_demo(keep=keep, as_json=as_json))
    except StoreError as error:
        print_problems([str(error)], title="the demo cannot run")
        return Exit.FAILED


async def _demo(*, keep: bool, as_json: bool) -> Exit:
    from palette_sync.assembly.instance import open_shared
    from palette_sync.config import load
    from palette_sync.simulator import Simulator, SimulatorOptions
    from palette_sync.store.embedded import EmbeddedValkey
    from palette_sync.store.seal import SealKeys
    from palette_sync.telemetry.logs import configure_logging

    # Some steps fail on purpose. The demo explains them; the log stays silent.
    configure_logging(level="critical", style="console")
    console = SafeConsole(highlight=False, markup=False, emoji=False, quiet=as_json)
    options = SimulatorOptions(instances=INSTANCES, projects=PROJECTS, clusters=CLUSTERS, seed=1)
    with tempfile.TemporaryDirectory(prefix="palette-sync-demo-") as folder:
        async with EmbeddedValkey() as valkey, Simulator(options) as simulator:
            directory = Path(folder)
            simulator.write_config(directory, seal_keys_line=SealKeys.generate_line("demo"), redis_url=valkey.url)
            settings = load(directory / "config.toml", environ=QUIET)
            async with open_shared(settings) as shared:
                demo = _Demo(console, simulator, settings, shared, directory / "config.toml")
                await demo.play()
                if keep:
                    await _stay(console, directory, simulator)
    if as_json:
        print_json({"checks": demo.checks, "broken": demo.failures})
    if demo.failures:
        console.print(Text("\nSome checks failed:", style="bold red"))
        for line in demo.failures:
            console.print(Text(f"  {line}", style="red"))
        return Exit.FAILED
    console.print(Text(f"\nAll {len(demo.checks)} checks passed.", style="bold green"))
    return Exit.OK


async def _stay(console: Console, directory: Path, simulator: Simulator) -> None:
    config = directory / "config.toml"
    console.print(Rule("still running: try these commands in another terminal, and end with Ctrl-C"))
    for line in (
        f"{called()} clusters --config {config}",
        f"{called()} plan --resync --config {config}",
        f"{called()} run --config {config}",
        f"curl -s {simulator.control_url}/ | head    # the simulator's control API",
    ):
        console.print(f"  {line}", no_wrap=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()


class _Demo:
    """Each chapter changes the simulated world, runs passes, prints their reports and checks the result."""

    def __init__(
        self, console: Console, simulator: Simulator, settings: Settings, shared: Shared, config: Path
    ) -> None:
        self.console = console
        self.simulator = simulator
        self.settings = settings
        self.shared = shared
        self.config = config
        self.failures: list[str] = []
        self.checks: list[dict[str, object]] = []

    async def play(self) -> None:
        await self.first_sync()
        await self.quiet_pass()
        await self.drifted_role()
        await self.comings_and_goings()
        await self.outage()
        await self.every_kind()
        await self.daemon()

    def chapter(self, title: str, text: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(title, style="bold"), align="left"))
        self.console.print(Text(text, style="dim"))

    def expect(self, holds: bool, what: str) -> None:
        mark, style = ("ok", "green") if holds else ("NO", "bold red")
        self.console.print(Text.assemble((f"  {mark}  ", style), what))
        self.checks.append({"what": what, "holds": holds})
        if not holds:
            self.failures.append(what)

    async def passes(self, options: PassOptions | None = None) -> list[PassReport]:
        from palette_sync.cli.once import run_all
        from palette_sync.reconcile.ports import PassOptions

        self.simulator.requests.reset()
        reports, errors = await run_all(
            self.shared,
            dict(self.settings.instances),
            options or PassOptions(scheduled=True),
            lambda _instance: lambda _stage, _done, _total: None,
        )
        for report in reports:
            print_report(report, console=self.console)
        self.failures += [f"{name}: {error}" for name, error in errors.items()]
        return reports

    async def first_sync(self) -> None:
        self.chapter(
            "1. First sync",
            f"{INSTANCES} simulated Palette instances, alpha and bravo, have {PROJECTS} projects and {CLUSTERS} "
            "clusters. A third of the clusters logs in users by OIDC. In each other cluster, palette-sync creates a "
            "namespace, a service account with a token that expires, and a role that only reads. Then it publishes the "
            "access for Backstage.",
        )
        reports = await self.passes()
        ready = sum(report.access.get("ready", 0) for report in reports)
        took = max(report.duration_s for report in reports)
        plugin = CLUSTERS * SECONDS_PER_CLUSTER_IN_THE_PLUGIN
        self.expect(
            ready == CLUSTERS,
            f"{ready} of {CLUSTERS} clusters are ready after {took:.1f} s "
            f"(the in-process plugin takes {plugin:.0f} s, one after another)",
        )
        pods = await self.pods_seen()
        self.expect(
            pods > 0,
            f"a reader of Redis lists {pods} pods with a published token, and TLS is verified with the published CA",
        )

    async def quiet_pass(self) -> None:
        self.chapter(
            "2. A quiet pass",
            "Nothing has changed since. palette-sync lists the clusters in Palette, and contacts none of them.",
        )
        reports = await self.passes()
        kube = self.simulator.requests.count("kube")
        palette = self.simulator.requests.count("palette")
        self.expect(kube == 0, f"{kube} Kubernetes requests, {palette} Palette requests for {CLUSTERS} clusters")
        self.expect(all(one.version == one.version_before for one in reports), "no new version was published")

    async def drifted_role(self) -> None:
        self.chapter(
            "3. Somebody widens a role",
            "In one cluster, somebody changes the read-only role so that it allows everything. A resync verifies the "
            "objects in all clusters and repairs what differs.",
        )
        from palette_sync.reconcile.ports import PassOptions

        victim = next(one for one in self.simulator.world.clusters.values() if not one.oidc)
        wide = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
        victim.kube.patch("ClusterRole", None, "backstage-read-only", {"rules": wide})
        await self.passes(PassOptions(resync=True))
        role = victim.kube.get("ClusterRole", None, "backstage-read-only")
        repaired = role is not None and role["rules"][0]["verbs"] == ["get", "list", "watch"]
        self.expect(repaired, "the role allows only get, list and watch again")

    async def comings_and_goings(self) -> None:
        self.chapter(
            "4. One cluster is added, another is deleted",
            "Both happen in Palette. The next pass gives access to the new cluster, and drops the deleted one from the "
            "snapshot.",
        )
        world = self.simulator.world
        alpha = world.instances["alpha"]
        project = next(iter(alpha.projects.values()))
        added = await world.add_cluster("alpha", project.uid, "brand-new")
        gone = next(one for one in alpha.clusters.values() if one.uid != added.uid and one.project_uid == project.uid)
        world.set_state(gone.uid, Reason.DELETING.value)
        await self.passes()
        state = await self.shared.store.load("alpha")
        self.expect(
            added.uid in state.records and gone.uid not in state.records,
            "the published snapshot has the new cluster, and the deleted one is gone",
        )
        self.expect(state.records[added.uid].access.state.value == "ready", "the new cluster is ready")

    async def outage(self) -> None:
        self.chapter(
            "5. Palette is down, then it answers wrongly",
            "Instance bravo answers every request with HTTP 503. palette-sync retries for a few seconds, then keeps "
            "what it published: an outage of Palette must not take clusters away from Backstage. Then bravo lists no "
            "cluster at all, as it does for a key that lost its roles. The records are held until that is confirmed.",
        )
        from palette_sync.simulator import Fault

        before = await self.shared.store.load("bravo")
        fault = self.simulator.faults.add(Fault(target="palette", instance="bravo", kind="status", status=503))
        await self.passes()
        after = await self.shared.store.load("bravo")
        self.expect(before.records == after.records, f"all {len(after.records)} records of bravo are still published")
        self.expect(before.credentials == after.credentials, "and so are their credentials")
        self.simulator.faults.remove(fault)
        reports = await self.passes()
        self.expect(not any(report.failed for report in reports), "once Palette answers again, the next pass succeeds")
        bravo = self.simulator.world.instances["bravo"]
        bravo.behaviour.listing_lie = "empty"
        await self.passes()
        held = await self.shared.store.load("bravo")
        self.expect(held.records.keys() == after.records.keys(), "no record is dropped because of an empty listing")
        bravo.behaviour.listing_lie = "none"

    async def every_kind(self) -> None:
        self.chapter(
            "6. Clusters of every kind",
            "The kubeconfigs of some clusters ask to run a program for a token of AWS, Google Cloud or Azure, or hold "
            "a token that has expired. Some clusters have no kubeconfig, or are reached through Spectro Proxy only. "
            "One of each kind is added to alpha. No program is ever run.",
        )
        from palette_sync.simulator.mix import add_mix

        project = next(iter(self.simulator.world.instances["alpha"].projects))
        made = await add_mix(self.simulator.world, "alpha", project)
        await self.passes()
        state = await self.shared.store.load("alpha")
        found = {kind: state.records[cluster.uid].access for kind, cluster in made.items()}
        ready = [kind for kind in made if kind not in WITHOUT_ACCESS]
        self.expect(all(found[kind].state.value == "ready" for kind in ready), f"these are ready: {', '.join(ready)}")
        self.expect(
            all(found[kind].reason is reason for kind, reason in WITHOUT_ACCESS.items()),
            "each other one says why not, and what to do:",
        )
        for kind, reason in WITHOUT_ACCESS.items():
            self.console.print(Text(f"      {kind}: {reason}. {reason.remedy}", style="dim"))
        await self.passes()
        files = self.simulator.requests.count("palette", path_regex=".*/assets/.*")
        self.expect(files == 0, f"the next pass asks Palette for {files} files: nothing has changed")

    async def daemon(self) -> None:
        self.chapter(
            "7. The daemon",
            "Now `palette-sync run` takes over. The API server of a new cluster issues tokens that live for "
            f"{SHORT_LIFE} s, to show how the daemon replaces one. This takes a few seconds.",
        )
        from palette_sync.cli.demo_daemon import run_daemon

        world = self.simulator.world
        project = next(iter(world.instances["alpha"].projects))
        added = await world.add_cluster("alpha", project, "short-lived")
        world.set_token_cap(added.uid, SHORT_LIFE)
        async with run_daemon(self.config, QUIET) as daemon:
            ready = await daemon.event("daemon_ready")
            self.expect(
                ready is not None,
                "it is ready: it holds the lease of each instance and has read the published snapshots",
            )
            first = await daemon.event("token_issued", cluster=added.uid)
            renewed = await daemon.event("token_issued", cluster=added.uid, reason=Reason.TOKEN_DUE)
            if renewed is not None:  # a new token is published by the end of its pass
                await daemon.event("pass_finished", after=daemon.index(renewed), instance="alpha")
            pods = await self.pods_seen(added.uid) if renewed else 0
            self.expect(
                first is not None and renewed is not None and pods > 0,
                "it replaced the short-lived token before the token expired, and the new one lists pods",
            )
            await daemon.event("pass_finished", instance="bravo", action="list")
            said = daemon.lines
            daemon.send(signal.SIGUSR1)
            resynced = await daemon.event("pass_finished", after=said, instance="bravo", action="list")
            due = resynced["due"] if resynced else 0
            self.expect(due > 0, f"after SIGUSR1 it verified all {due} clusters of bravo immediately")
            daemon.send(signal.SIGTERM)
            code = await daemon.ended()
        self.expect(code == 0, "after SIGTERM it finished its work and exited with code 0")

    async def pods_seen(self, uid: str | None = None) -> int:
        """Use a published credential as a reader does: record and token from Redis, TLS with the record's CA."""
        from palette_sync.assembly.policy import network_of
        from palette_sync.core.model import ServiceAccountAuth
        from palette_sync.core.snapshot_codec import sealed_for
        from palette_sync.kube.kubeconfig import BearerToken
        from palette_sync.kube.transport import KubeApi, Requests

        requests = Requests(network=network_of(self.shared.settings))
        state = await self.shared.store.load("alpha")
        record = next(
            one for one in state.records.values() if isinstance(one.auth, ServiceAccountAuth) and uid in (None, one.uid)
        )
        assert record.server is not None
        credential = state.credentials[record.uid]
        target = sealed_for(self.shared.store.keys.prefix, record, credential)
        token = self.shared.sealer.open(target, credential.sealed)
        async with KubeApi(record.server, BearerToken(token), timeout=5, requests=requests) as api:
            found = await api.call("GET pods", api.core.list_pod_for_all_namespaces)
        return len(found["items"])
