"""What `palette-sync check` says about one Palette: errors with their own remedies, permissions, and filters."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from palette_sync import palette
from palette_sync.cli.finding import OK, PROBLEM, WARNING, Finding
from palette_sync.core.model import AuthMode
from palette_sync.core.select import unmatched
from palette_sync.core.text import counted
from palette_sync.http import Cause
from palette_sync.palette.rows import ADMIN_PERMISSION, ADMIN_PERMISSION_BEFORE, READ_PERMISSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from palette_sync.core.model import Cluster, Discovery
    from palette_sync.core.policy import InstancePolicy

_BY_CAUSE = {
    Cause.PROXY: "the proxy refuses the connection: allow Palette's host in its rules, or correct http_proxy",
    Cause.TLS: "set ca_file to the CA of Palette's certificate, or of the proxy that replaces it",
    Cause.TLS_VERSION: "let the server, or what stands between, speak TLS 1.2 or newer",
    Cause.PLAIN_HTTP: "check the host and port in url: what answers there does not speak TLS",
    Cause.DNS: "correct the host in url, or the name servers of this machine",
    Cause.TIMEOUT: "nothing answered in time: check firewalls on the way to Palette, http_proxy, and Palette itself",
    Cause.CONNECT: "check url, http_proxy and the firewalls on the way to Palette",
}
_PROXY_LOGIN = "the proxy asks for a login: write it into http_proxy, as in http://USER:PASSWORD@HOST:PORT"
_NO_PALETTE = "a proxy or firewall seems to answer in Palette's place: check url, http_proxy, and its rules"
_PERMISSIONS = {"projects": "project.list and project.get"}
_BY_KIND: dict[type[Exception], str] = {
    palette.Unauthorized: "create an API key in Palette (My API Keys) and put it into api_key_file",
    palette.ProjectUnavailable: "give the API key's user a role in that project, or exclude the project",
    palette.TenantMismatch: "correct tenant, or use an API key of that tenant",
    palette.TooManyRequests: "find what else uses Palette from the same address, or try again later",
    palette.ServerFailure: "Palette itself fails: look at its status page or logs; what is published stays in use",
    palette.IncompleteListing: "run the check again; if it stays, report the message to Spectro Cloud",
    TimeoutError: _BY_CAUSE[Cause.TIMEOUT],
}
_ANOTHER_SITE = "check that url is the address of Palette's API, and not of another site"


def remedy_of(error: Exception, scope: str = "") -> str:
    """What to do about an error of Palette. `scope`: what was to be listed, empty for the check of the key itself."""
    if isinstance(error, palette.Unreachable):
        if error.cause is Cause.PROXY and f"HTTP {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED.value}" in str(error):
            return _PROXY_LOGIN
        return _BY_CAUSE.get(error.cause or Cause.BROKEN, "check the network, http_proxy, and what stands between")
    if isinstance(error, palette.PaletteError) and error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return _PROXY_LOGIN
    if isinstance(error, palette.NotPermitted):
        needed = _PERMISSIONS.get(scope, "cluster.list and cluster.get")
        return _NO_PALETTE if error.code is None else f"give the API key's user a role with {needed}"
    return _BY_KIND.get(type(error), _ANOTHER_SITE)


def discovery_findings(
    name: str, found: Discovery, errors: Mapping[str, Exception], policy: InstancePolicy
) -> list[Finding]:
    """What listing an instance showed. `errors` are those of its scopes, and of the list of projects."""
    if found.projects is None:
        return [Finding(PROBLEM, name, found.error or "", remedy_of(errors["projects"], "projects"))]
    rows = [cluster for listing in found.listings for cluster in listing.clusters]
    selected = sum(listing.scope != "tenant" for listing in found.listings)
    seen = f"{selected} of {len(found.projects)} projects, {counted(len(rows), 'cluster')}"
    findings = [Finding(OK, name, f"tenant {found.org_name}: {seen}")]
    if found.short:
        findings.append(_short(name, "the list of projects", found.short))
    for listing in found.listings:
        where = "the tenant scope" if listing.scope == "tenant" else f"project {listing.name}"
        if listing.not_permitted:
            what = "the API key may not list tenant-scoped clusters"
            remedy = "set exclude_tenant_scoped_clusters = true, or give the user a tenant role with cluster.list"
            findings.append(Finding(WARNING, name, what, remedy))
        elif listing.error:
            remedy = remedy_of(errors[listing.scope], listing.scope)
            findings.append(Finding(PROBLEM, name, f"{where}: {listing.error}", remedy))
        elif listing.short:
            findings.append(_short(name, where, listing.short))
    patterns = unmatched(policy.filters, found)
    findings += [Finding(WARNING, name, line, "correct the pattern, or remove it") for line in patterns]
    if policy.filters.include_virtual and found.listings and not any(row.virtual for row in rows):
        what = "include_virtual is set, and the API key sees no virtual cluster"
        remedy = "if there are some, give its user virtualCluster.list and virtualCluster.get"
        findings.append(Finding(WARNING, name, what, remedy))
    return findings


def _short(name: str, where: str, problem: str) -> Finding:
    remedy = "run the check again; if it stays, report it to Spectro Cloud, and drop clusters with --allow-prune"
    return Finding(WARNING, name, f"{where}: {problem}", remedy)


def permission_findings(
    name: str, rows: list[Cluster], policy: InstancePolicy, known: frozenset[str] | None
) -> list[Finding]:
    """What the key's user may not do with the listed clusters, according to their rows.

    `known` are the permissions that exist in this version of Palette, None if that is not known: the permission to
    download admin kubeconfigs is younger than others.
    """
    if known is None:
        enough = {ADMIN_PERMISSION, ADMIN_PERMISSION_BEFORE}
        named = f"{ADMIN_PERMISSION} (Palette before 4.8.21: {ADMIN_PERMISSION_BEFORE})"
    else:
        named = ADMIN_PERMISSION if ADMIN_PERMISSION in known else ADMIN_PERMISSION_BEFORE
        enough = {named}
    judged = [row for row in rows if row.permissions is not None and not row.imported]
    findings = []
    blind = [row.name for row in judged if READ_PERMISSION not in (row.permissions or ())]
    if blind:
        what = f"the API key may not read {counted(len(blind), 'cluster')}, for example {blind[0]}"
        findings.append(Finding(WARNING, name, what, f"give its user a role with {READ_PERMISSION}"))
    without = [
        row.name
        for row in judged
        if policy.mode_of(row) is not AuthMode.OIDC and not enough & (row.permissions or frozenset())
    ]
    if without:
        some = f"{len(without)} of {counted(len(judged), 'cluster')}, for example {without[0]}"
        what = f"the API key may not download the admin kubeconfig of {some}"
        findings.append(Finding(WARNING, name, what, f"give its user a role with {named}, or use OIDC"))
    return findings
