"""`palette-sync check`: whether a pass has everything that it needs, and what to do if not. Writes nothing."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.called import called
from palette_sync.cli.console import out, print_json, progress_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.cli.finding import OK, PROBLEM, WARNING, Finding
from palette_sync.cli.wide_rights import REMEDY, wide_rights_by_instances
from palette_sync.config.loading import EXPOSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from palette_sync.config import InstanceSettings, Settings
    from palette_sync.core.model import Cluster, InstanceState
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import Limits, PaletteClient
    from palette_sync.store.redis import Store
    from palette_sync.store.seal import Sealer

INDENT = 10  # columns of a remedy, and of further lines
STYLES = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}


def run(config: Path, instances: list[str] | None, *, as_json: bool) -> Exit:
    """Exit 0: no problem, with or without warnings; 1: a pass would fail; 78: the configuration is wrong."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.store import chosen_instances, sealer_of
        from palette_sync.palette import Limits

        chosen = chosen_instances(settings, instances)
        findings = [Finding(OK, "configuration", f"valid; instances: {', '.join(settings.instances)}")]
        sealer = sealer_of(settings)
        if settings.seal == "none":
            findings.append(
                Finding(
                    WARNING, "seal", 'tokens are stored in Redis in the clear (seal = "none")', "set [seal] keys_file"
                )
            )
        else:
            findings.append(Finding(OK, "seal", "the keys are valid"))
        findings += [Finding(WARNING, "permissions", where, EXPOSED) for where in settings.exposed_secrets]
        limits = Limits(enabled=settings.service.palette_rate_limits)
        with progress_of(list(chosen), show=not as_json) as reporter:
            async with asyncio.TaskGroup() as group:
                store = group.create_task(_check_redis(settings, sealer, list(chosen)), name="redis")
                tasks = [
                    group.create_task(_check_instance(name, one, limits), name=name) for name, one in chosen.items()
                ]
                for name in chosen:
                    reporter(name)("asking Palette", 0, 0)
        for task in (store, *tasks):
            findings += task.result()
        findings += _wide_rights(chosen)
        failed = any(one.level == PROBLEM for one in findings)
        _print_findings(findings, as_json=as_json)
        if not as_json:
            _print_next(config, instances, failed=failed)
        return Exit.FAILED if failed else Exit.OK

    return run_command(config, work, log_level="error")


async def _check_redis(settings: Settings, sealer: Sealer, instances: list[str]) -> list[Finding]:
    from palette_sync.assembly.store import open_store
    from palette_sync.store.redis import StoreError

    try:
        async with open_store(settings, sealer) as store:
            findings = await _redis_findings(store, instances)
            if any(one.level == PROBLEM for one in findings):
                return findings
            states = {name: await store.load(name) for name in instances}
            return findings + _seal_findings(store.keys.prefix, states, sealer) + _login_findings(states)
    except StoreError as error:
        return [Finding(PROBLEM, "redis", str(error), "check [redis] url, the network and the user's ACL")]


async def _redis_findings(store: Store, instances: list[str]) -> list[Finding]:
    from palette_sync.store.server import foreign_keys, server_facts

    facts = await server_facts(store.link, store.keys)
    findings = [Finding(OK, "redis", f"{facts.name} {facts.version} answers")]
    if not facts.supported:
        findings.append(
            Finding(PROBLEM, "redis", f"{facts.name} {facts.version} is too old", "use Redis >= 6.2 or Valkey >= 7.2")
        )
    if facts.role not in (None, "master"):
        findings.append(
            Finding(PROBLEM, "redis", "this server is a replica", "set [redis] url to the primary, or use Sentinel")
        )
    if facts.cluster:
        what = "this server runs in cluster mode, and Redis Cluster is not supported"
        findings.append(Finding(PROBLEM, "redis", what, "name a server without cluster mode, or use Sentinel"))
    if facts.eviction not in (None, "noeviction"):
        what = f"maxmemory-policy is {facts.eviction}, so Redis can evict records"
        findings.append(Finding(WARNING, "redis", what, "set maxmemory-policy noeviction"))
    if facts.append_only is False:
        what = "appendonly is off, so a crash of the server loses the last writes, tokens included"
        findings.append(
            Finding(WARNING, "redis", what, "set appendonly yes; without it the daemon issues lost tokens again")
        )
    if facts.denied:
        user = f"the user {facts.user}" if facts.user else "the user of [redis] url"
        what = f"{user} may not run {', '.join(facts.denied)}"
        findings.append(
            Finding(PROBLEM, "redis", what, "grant them on the keys of the prefix, as deploy/redis/users.acl does")
        )
    elif facts.denied is None:
        what = "the user's rights cannot be read, which needs Redis >= 7, ACL WHOAMI and ACL DRYRUN"
        findings.append(Finding(WARNING, "redis", what, "compare its ACL with deploy/redis/users.acl"))
    for key, kind in (await foreign_keys(store.link, store.keys, instances)).items():
        what = f"the key {key} has the type {kind}, so another program wrote it"
        findings.append(Finding(PROBLEM, "redis", what, "delete it, or choose another [redis] prefix"))
    return findings


def _seal_findings(prefix: str, states: Mapping[str, InstanceState], sealer: Sealer) -> list[Finding]:
    """Whether the configured seal keys fit what is published."""
    from palette_sync.core.snapshot_codec import sealed_for
    from palette_sync.store.seal import SealError

    findings = []
    for name, state in states.items():
        if state.head is None:
            continue
        if not state.trusted:
            what = f"the published snapshot of {name} does not verify with the configured seal keys"
            remedy = (
                "use the keys of the daemon that published it; if they are the same, another program wrote to Redis"
            )
            findings.append(Finding(PROBLEM, "seal", what, remedy))
            continue
        closed = 0
        for uid, credential in state.credentials.items():
            try:
                sealer.open(sealed_for(prefix, state.records[uid], credential), credential.sealed)
            except (SealError, KeyError):  # KeyError: its record cannot be decoded
                closed += 1
        if closed:
            what = f"{closed} of {len(state.credentials)} published tokens of {name} are sealed with another key"
            remedy = "add that key to [seal] keys_file; without it the daemon issues these tokens again"
            findings.append(Finding(WARNING, "seal", what, remedy))
        else:
            findings.append(Finding(OK, "seal", f"the keys fit what is published of {name}"))
    return findings


def _login_findings(states: Mapping[str, InstanceState]) -> list[Finding]:
    """Names of OIDC providers that stand for several logins, across the published records of all instances."""
    from palette_sync.core.oidc_names import ambiguous_providers

    records = [record for state in states.values() for record in state.records.values()]
    return [
        Finding(
            WARNING,
            "oidc",
            f"the provider {provider} stands for several logins: {logins}",
            "give each login its own name in Backstage, and set oidc.provider by instance or rule",
        )
        for provider, logins in ambiguous_providers(record.auth for record in records).items()
    ]


async def _check_instance(name: str, settings: InstanceSettings, limits: Limits) -> list[Finding]:
    from palette_sync.assembly.instance import client_of
    from palette_sync.assembly.policy import policy_of
    from palette_sync.assembly.store import StartError
    from palette_sync.cli.check_clouds import cloud_findings
    from palette_sync.cli.check_palette import discovery_findings, permission_findings, remedy_of
    from palette_sync.cloud import CloudTokens
    from palette_sync.palette import PaletteError, discover

    findings: list[Finding] = []
    errors: dict[str, Exception] = {}
    policy = policy_of(name, settings)
    filters = policy.filters
    try:
        async with client_of(name, settings, limits) as client:
            found = await discover(
                client,
                choose=filters.chooses_project,
                tenant_scope=not filters.exclude_tenant_scoped_clusters,
                include_virtual=filters.include_virtual,
                tenant=settings.tenant,
                on_error=errors.__setitem__,
            )
            findings += discovery_findings(name, found, errors, policy)
            rows = [cluster for listing in found.listings for cluster in listing.clusters]
            findings += permission_findings(name, rows, policy, await _known_permissions(client, rows))
            findings += await _issuer_findings(policy, rows, client)
            findings += await _key_expiry(name, settings, client)
            findings += await cloud_findings(policy, client, rows, CloudTokens())
    except PaletteError as error:
        findings.append(Finding(PROBLEM, name, str(error), remedy_of(error)))
    except StartError as error:
        findings.append(Finding(PROBLEM, name, str(error), "correct what the message names"))
    return findings


def _wide_rights(chosen: Mapping[str, InstanceSettings]) -> list[Finding]:
    from palette_sync.assembly.policy import grants_roles, rules_of
    from palette_sync.core.rbac import wide_rights

    found = {name: wide_rights(rules_of(one)) for name, one in chosen.items() if grants_roles(one)}
    return [
        Finding(WARNING, names, f"the granted role {rights}", REMEDY)
        for names, rights in wide_rights_by_instances(found).items()
    ]


async def _known_permissions(client: PaletteClient, rows: list[Cluster]) -> frozenset[str] | None:
    """The permissions of this version of Palette; None if they cannot be read, or there is nothing to judge."""
    from palette_sync.palette import PaletteError, permission_names

    try:
        return await permission_names(client) if rows else None
    except PaletteError:
        return None


async def _issuer_findings(policy: InstancePolicy, rows: list[Cluster], client: PaletteClient) -> list[Finding]:
    from palette_sync.cli.issuers import refused_issuers

    return [
        Finding(
            WARNING,
            policy.instance,
            f"{count} clusters name the OIDC issuer {issuer} with the client {client_id}, which is not allowed",
            f"if it is yours, write below [instances.{policy.instance}.oidc]: {policy.oidc.issuers.line(issuer)}",
        )
        for (issuer, client_id), count in (await refused_issuers(client, policy, rows)).items()
    ]


async def _key_expiry(name: str, settings: InstanceSettings, client: PaletteClient) -> list[Finding]:
    from palette_sync.assembly.store import utc_now
    from palette_sync.core.expiry import warning_due
    from palette_sync.palette import PaletteError, api_key_expiry

    if settings.api_key_name is None:
        return [Finding(WARNING, name, "the API key's expiry is unknown", "set api_key_name to its name in Palette")]
    try:
        key = await api_key_expiry(client, settings.api_key_name)
    except PaletteError as error:
        return [
            Finding(WARNING, name, f"the API key's expiry cannot be read: {error}", "check the permissions of its user")
        ]
    if key is None:
        return [Finding(WARNING, name, "Palette lists no API key named api_key_name", "correct api_key_name")]
    if key.expiry is None:
        return [Finding(OK, name, "the API key never expires")]
    left = key.expiry - utc_now()
    level = OK if warning_due(left) is None else WARNING
    return [
        Finding(level, name, f"the API key expires in {left.days} days", "renew it in Palette" if level != OK else "")
    ]


def _print_next(config: Path, instances: list[str] | None, *, failed: bool) -> None:
    """Print the command to run next: the check again, or the plan of the first pass."""
    options = [part for name in instances or () for part in ("--instance", name)]
    command = shlex.join([called(), "check" if failed else "plan", "--config", str(config), *options])
    console = out()
    console.print("next, once that is corrected:" if failed else "next:")
    console.print(Text(f"  {command}", style="bold"), no_wrap=True)


def _print_findings(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    console = out()
    for finding, following in zip(findings, [*findings[1:], None], strict=True):
        level = (f"{finding.level:<8}", STYLES[finding.level])
        console.print(Text.assemble(level, f"{finding.where}: {finding.what}"), hang=INDENT)
        repeated = following is not None and (following.where, following.remedy) == (finding.where, finding.remedy)
        if finding.remedy and not repeated:  # the last of several findings with one remedy shows it
            console.print(Text(f"{' ' * INDENT}{finding.remedy}", style="dim"), hang=INDENT)
