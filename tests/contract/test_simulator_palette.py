"""The simulated Palette obeys Palette's description and the facts that are known beyond it."""

from __future__ import annotations

import base64
import json
import ssl
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml

from contract import palette_spec
from palette_sync.simulator import Simulator, SimulatorOptions
from palette_sync.simulator.rate_limit import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from palette_sync.simulator.cluster import SimCluster, SimInstance

SEARCH = "/v1/dashboard/spectroclusters/search"
ZERO = "0001-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to one instance; checks every 200 and every worded error against the description."""

    def __init__(self, session: aiohttp.ClientSession, instance: SimInstance) -> None:
        self.session = session
        self.instance = instance
        self.tls = ssl.create_default_context(cadata=instance.ca_pem)

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        project: str | None = None,
        key: str | None = None,
        check: bool = True,
        **options: Any,
    ) -> Reply:
        headers = {"ApiKey": self.instance.api_key if key is None else key, **options.pop("headers", {})}
        if project is not None:
            headers["ProjectUid"] = project
        async with self.session.request(
            method, self.instance.url + path, headers=headers, ssl=self.tls, **options
        ) as response:
            reply = Reply(response.status, response.headers, await response.read())
        if reply.status == 200 and check:
            palette_spec.check_answer(method, path, 200, reply.headers["Content-Type"], reply.body)
        elif reply.body.startswith(b'{"code":"'):
            palette_spec.check_error(reply.body)
        return reply

    async def search(self, *, project: str | None = None, params: Any = None, body: Any = None) -> Reply:
        return await self("POST", SEARCH, project=project, params=params, json=body or {})


@asynccontextmanager
async def simulated(**options: Any) -> AsyncIterator[tuple[Simulator, Client]]:
    async with Simulator(SimulatorOptions(**options)) as sim, aiohttp.ClientSession() as session:
        yield sim, Client(session, sim.world.instances["alpha"])


@pytest.fixture
async def world() -> AsyncIterator[tuple[Simulator, Client]]:
    async with simulated() as both:
        yield both


def a_cluster(instance: SimInstance, *, oidc: bool = False) -> SimCluster:
    return next(c for c in instance.clusters.values() if c.oidc == oidc and c.project_uid is not None)


def read_yaml(text: bytes) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


def names(reply: Reply) -> list[str]:
    return [row["metadata"]["name"] for row in reply.json["items"]]


def text_filter(name: str, *values: str, negation: bool = False, operator: str = "eq") -> dict[str, Any]:
    condition = {"operator": operator, "negation": negation, "match": {"conjunction": "or", "values": list(values)}}
    return {"property": name, "type": "string", "condition": {"string": condition}}


def filtered(*filters: dict[str, Any], conjunction: str = "and") -> dict[str, Any]:
    group = {"conjunction": conjunction, "filters": list(filters)}
    return {"filter": {"conjunction": "and", "filterGroups": [group]}, "sort": []}


async def test_every_reading_operation_answers_as_described(world: tuple[Simulator, Client]) -> None:
    _, client = world
    instance = client.instance
    cluster = a_cluster(instance, oidc=True)
    of_project: dict[str, Any] = {"project": cluster.project_uid}
    board = "/v1/dashboard/spectroclusters"

    replies = [
        await client("GET", "/v1/users/info"),
        await client("GET", "/v1/apiKeys"),
        await client("GET", "/v1/health/ping"),
        await client("GET", "/v1/health/ready"),
        await client("GET", "/v1/auth/org"),
        await client("POST", "/v1/dashboard/projects", json={"filter": {}, "sort": []}),
        await client("GET", "/v1/dashboard/projects/metadata"),
        await client("GET", f"/v1/projects/{cluster.project_uid}"),
        await client("POST", SEARCH, json={}),
        await client("GET", f"{SEARCH}/schema"),
        await client("GET", f"{SEARCH}/input"),
        await client("POST", f"{board}/metadata/search", json={}),
        await client("GET", f"{board}/metadata/search/schema"),
        await client("GET", f"{board}/meta"),
        await client("GET", f"{board}/{cluster.uid}", **of_project),
        await client("GET", f"{board}/{cluster.uid}/overview", **of_project),
        await client("GET", "/v1/spectroclusters/tags"),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}", **of_project),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}/status", **of_project),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}/oidc", **of_project),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}/assets/adminKubeconfig", **of_project),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}/assets/kubeconfig", **of_project),
        await client("GET", f"/v1/spectroclusters/{cluster.uid}/assets/kubeconfigclient", **of_project),
    ]

    assert [reply.status for reply in replies] == [200] * len(replies)
    assert replies[0].json["tenantUid"] == instance.tenant_uid
    assert replies[1].json["items"][0]["metadata"]["name"] == instance.api_key_name


async def test_a_row_carries_scope_permissions_tags_project_and_zero_times(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    cluster = a_cluster(client.instance)
    sim.world.set_tags(cluster.uid, ["team:web", "plain"])
    sim.world.set_admin_download(cluster.uid, allowed=False)

    rows = {row["metadata"]["uid"]: row for row in (await client.search()).json["items"]}
    row = rows[cluster.uid]
    tenant_rows = [r for r in rows.values() if r["metadata"]["annotations"]["scope"] == "tenant"]

    assert row["metadata"]["labels"] == {"team": "web", "plain": "spectro__tag"}
    assert row["metadata"]["annotations"]["scope"] == "project"
    assert row["metadata"]["annotations"]["projectUid"] == cluster.project_uid
    assert row["metadata"]["annotations"]["permissions"] == "cluster.get,cluster.list"
    assert row["metadata"]["deletionTimestamp"] == ZERO
    assert row["specSummary"]["projectMeta"]["uid"] == cluster.project_uid
    assert row["status"]["health"]["state"] == "Healthy"
    assert row["specSummary"]["clusterProfileTemplates"] is None
    assert len(tenant_rows) == 1
    assert "projectUid" not in tenant_rows[0]["metadata"]["annotations"]


async def test_a_page_holds_at_most_fifty_and_the_cursor_leads_through_all() -> None:
    async with simulated(instances=1, projects=1, clusters=120, tenant_scoped=0) as (_, client):
        seen: list[str] = []
        token = None
        pages = 0
        while token != "":
            params = {"continue": token} if token else {"limit": "50"}
            page = (await client.search(params=params)).json
            assert page["listmeta"]["count"] == 120
            seen += [row["metadata"]["uid"] for row in page["items"]]
            token = page["listmeta"]["continue"]
            pages += 1

    assert pages == 3
    assert Counter(seen) == Counter(list(client.instance.clusters))


async def test_a_cursor_in_the_body_is_ignored() -> None:
    async with simulated(instances=1, projects=1, clusters=60) as (_, client):
        first = await client.search()
        token = first.json["listmeta"]["continue"]
        again = await client.search(body={"continue": token})
        in_header = await client("POST", SEARCH, json={}, headers={"Continue": token})
        proper = await client.search(params={"continue": token})

    assert names(again) == names(first) == names(in_header)
    assert not set(names(proper)) & set(names(first))


async def test_a_limit_above_fifty_is_refused_for_clusters_and_cut_silently_for_projects(
    world: tuple[Simulator, Client],
) -> None:
    sim, client = world
    for number in range(60):
        sim.world.add_project("alpha", f"more-{number}")

    refused = await client.search(params={"limit": "51"})
    cut = await client("POST", "/v1/dashboard/projects", params={"limit": "100"}, json={})

    assert refused.status == 422
    assert refused.json == {"code": 608, "message": "limit in query should be less than or equal to 50"}
    assert len(cut.json["items"]) == 50
    assert cut.json["listmeta"]["continue"] != ""


async def test_offset_and_a_broken_cursor_are_understood(world: tuple[Simulator, Client]) -> None:
    _, client = world
    whole = names(await client.search())
    rest = await client.search(params={"offset": "5", "limit": "3"})
    broken = await client.search(params={"continue": "%%%"})
    no_number = await client.search(params={"limit": "many"})

    assert names(rest) == whole[5:8]
    assert (broken.status, broken.json["code"]) == (400, "InvalidContinueToken")
    assert (no_number.status, no_number.json["code"]) == (422, 601)


async def test_filters_and_sorting_select_clusters(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    project = next(iter(client.instance.projects))
    nested = await sim.world.add_cluster("alpha", project, "zz-nested", virtual=True)
    gone = await sim.world.add_cluster("alpha", project, "aa-gone", state="Deleted")
    await sim.world.add_cluster("alpha", project, "mm-sick", health="UnHealthy", tags=["team:web"])
    not_nested = text_filter("environment", "nested", negation=True)
    not_deleted = {"property": "isDeleted", "type": "bool", "condition": {"bool": {"value": False}}}
    sick = text_filter("healthState", "unhealthy")
    sick["condition"]["string"]["ignoreCase"] = True
    tagged = {
        "property": "tags",
        "type": "keyValue",
        "condition": {"keyValue": {"key": "team", "operator": "eq", "match": {"values": ["web"]}}},
    }
    young = {
        "property": "creationTimestamp",
        "type": "date",
        "condition": {"date": {"operator": "gt", "match": {"values": ["2026-01-15T10:05:00Z"]}}},
    }

    plain = names(await client.search())
    usual = names(await client.search(body=filtered(not_nested, not_deleted)))

    assert {nested.name, gone.name} <= set(plain)
    assert set(plain) - set(usual) == {nested.name, gone.name}
    assert names(await client.search(body=filtered(sick))) == ["mm-sick"]
    assert names(await client.search(body=filtered(text_filter("healthState", "unhealthy")))) == []
    assert names(await client.search(body=filtered(tagged))) == ["mm-sick"]
    assert set(names(await client.search(body=filtered(young)))) == set(plain[12:])
    either = filtered(text_filter("clusterName", "aa-", operator="beginsWith"), sick, conjunction="or")
    assert names(await client.search(body=either)) == ["aa-gone", "mm-sick"]
    by_name = {"sort": [{"field": "clusterName", "order": "desc"}]}
    assert names(await client.search(body=by_name)) == sorted(plain, reverse=True)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(filtered(text_filter("nonsense", "x")), id="an unknown property"),
        pytest.param(filtered(text_filter("isDeleted", "x")), id="a condition of the wrong type"),
        pytest.param(filtered(text_filter("clusterName", "x", operator="like")), id="an unknown operator"),
        pytest.param({"filter": {"conjunction": "nor"}}, id="an unknown conjunction"),
        pytest.param({"sort": [{"field": "tags", "order": "asc"}]}, id="a field that does not sort"),
    ],
)
async def test_a_filter_outside_the_language_is_refused(world: tuple[Simulator, Client], body: Any) -> None:
    _, client = world
    reply = await client.search(body=body)

    assert reply.status == 422
    assert isinstance(reply.json["code"], int)


async def test_projects_are_filtered_by_name_and_sorted(world: tuple[Simulator, Client]) -> None:
    _, client = world
    path = "/v1/dashboard/projects"
    first = names(await client("POST", path, json={}))

    descending = await client("POST", path, json={"sort": [{"field": "name", "order": "desc"}]})
    one = await client("POST", path, json={"filter": {"name": {"eq": first[0].upper()}}})
    none = await client("POST", path, json={"filter": {"name": {"eq": first[0].upper(), "ignoreCase": False}}})
    light = await client("GET", "/v1/dashboard/projects/metadata", params={"name": first[1]})

    assert names(descending) == sorted(first, reverse=True)
    assert names(one) == [first[0]]
    assert names(none) == []
    assert [item["metadata"]["name"] for item in light.json["items"]] == [first[1]]


async def test_the_project_header_decides_what_is_seen(world: tuple[Simulator, Client]) -> None:
    _, client = world
    instance = client.instance
    cluster = a_cluster(instance)
    other = next(uid for uid in instance.projects if uid != cluster.project_uid)
    tenant = next(c for c in instance.clusters.values() if c.project_uid is None)
    one = f"/v1/spectroclusters/{cluster.uid}"

    everything = await client.search()
    own = await client.search(project=cluster.project_uid)
    unknown = await client.search(project="0" * 24)
    replies = [await client("GET", one, project=other), await client("GET", one)]
    replies.append(await client("GET", f"/v1/spectroclusters/{tenant.uid}", project=other))
    missing = await client("GET", f"/v1/spectroclusters/{'0' * 24}", project=cluster.project_uid)

    assert len(everything.json["items"]) == len(instance.clusters)
    assert {r["metadata"]["annotations"]["projectUid"] for r in own.json["items"]} == {cluster.project_uid}
    assert (unknown.status, unknown.json["code"]) == (404, "ProjectNotFoundInTenant")
    assert {(r.status, r.json["code"]) for r in replies} == {(403, "OperationForbidden")}
    assert (missing.status, missing.json["code"]) == (404, "ResourceNotFound")
    assert (await client("GET", f"/v1/spectroclusters/{tenant.uid}")).status == 200


async def test_a_project_key_needs_the_header_and_sees_its_projects_only(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    allowed, denied, *_ = client.instance.projects
    tenant = next(c for c in client.instance.clusters.values() if c.project_uid is None)
    sim.world.set_key_permission("alpha", "project", [allowed])

    headerless = await client.search()
    listed = await client("POST", "/v1/dashboard/projects", json={})
    inside = await client.search(project=allowed)
    outside = await client.search(project=denied)

    assert (headerless.status, headerless.json["code"]) == (403, "OperationForbidden")
    assert [row["metadata"]["uid"] for row in listed.json["items"]] == [allowed]
    assert inside.status == 200
    assert (outside.status, outside.json["code"]) == (403, "ResourceAccessDenied")
    assert (await client("GET", f"/v1/spectroclusters/{tenant.uid}")).status == 403


@pytest.mark.parametrize("path", ["/v1/users/info", "/v1/dashboard/projects/metadata", "/v1/apiKeys"])
async def test_a_wrong_missing_or_revoked_key_is_unauthorized(world: tuple[Simulator, Client], path: str) -> None:
    sim, client = world
    wrong = await client("GET", path, key="wrong")
    as_bearer = await client("GET", path, key="", headers={"Authorization": f"Bearer {client.instance.api_key}"})
    sim.world.set_key_active("alpha", active=False)
    revoked = await client("GET", path)

    assert {(r.status, r.json["code"]) for r in (wrong, as_bearer, revoked)} == {(401, "UnAuthorizedAccess")}


async def test_a_wrong_key_can_be_answered_as_not_found_with_the_key_in_the_message(
    world: tuple[Simulator, Client],
) -> None:
    _, client = world
    client.instance.behaviour.bad_key = "not-found"

    wrong = await client("GET", "/v1/users/info", key="wrong-key")
    missing = await client("GET", "/v1/users/info", key="")

    assert (wrong.status, wrong.json["code"]) == (404, "ResourceNotFound")
    assert "wrong-key" in wrong.json["message"]
    assert missing.status == 401


async def test_an_older_palette_answers_a_wrong_project_as_a_missing_permission(
    world: tuple[Simulator, Client],
) -> None:
    sim, client = world
    allowed, denied, *_ = client.instance.projects
    client.instance.behaviour.bad_project = "forbidden"
    sim.world.set_key_permission("alpha", "project", [allowed])

    replies = [await client.search(project=project) for project in (denied, "0" * 24)]

    assert {(one.status, one.json["code"]) for one in replies} == {(403, "OperationForbidden")}
    assert (await client.search(project=allowed)).status == 200


async def test_a_project_key_can_be_answered_without_rows(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    sim.world.set_key_permission("alpha", "project")
    client.instance.behaviour.no_tenant_right = "empty"

    assert (await client.search()).json["items"] == []
    assert (await client("GET", "/v1/users", check=False)).status == 403


@pytest.mark.parametrize(
    ("lie", "rows", "total"),
    [("none", 12, 12), ("total-too-high", 12, 14), ("empty", 0, 0), ("half", 6, 6)],
)
async def test_a_listing_can_lie_about_its_rows(lie: Any, rows: int, total: int) -> None:
    async with simulated(instances=1, projects=12, clusters=12) as (_, client):
        client.instance.behaviour.listing_lie = lie
        for reply in (await client.search(), await client("POST", "/v1/dashboard/projects", json={})):
            assert (len(reply.json["items"]), reply.json["listmeta"]["count"]) == (rows, total)
            assert reply.json["listmeta"]["continue"] == ""


async def test_an_imported_cluster_says_so_and_offers_no_kubeconfig(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    cluster = a_cluster(client.instance)
    sim.world.set_imported(cluster.uid, imported=True, read_only=True)
    one = f"/v1/spectroclusters/{cluster.uid}"

    (row,) = [
        row
        for row in (await client.search(project=cluster.project_uid)).json["items"]
        if row["metadata"]["uid"] == cluster.uid
    ]
    small = await client("POST", "/v1/dashboard/spectroclusters/metadata/search", project=cluster.project_uid, json={})
    modes = {row["metadata"]["uid"]: row["specSummary"]["importMode"] for row in small.json["items"]}
    whole = await client("GET", one, project=cluster.project_uid)
    files = [
        await client("GET", f"{one}/assets/{name}", project=cluster.project_uid)
        for name in ("adminKubeconfig", "kubeconfig", "kubeconfigclient")
    ]

    assert row["status"]["clusterImport"]["isBrownfield"] is True
    assert modes[cluster.uid] == "read-only"
    assert whole.json["spec"]["clusterType"] == "AlloyMonitor"
    assert {(file.status, file.json["code"]) for file in files} == {(404, "ResourceNotFound")}


@pytest.mark.parametrize("newer", [True, False])
async def test_the_catalogue_of_permissions_and_the_rows_are_those_of_the_version(
    world: tuple[Simulator, Client], *, newer: bool
) -> None:
    _, client = world
    client.instance.behaviour.admin_permission = newer
    name = "cluster.adminKubeconfigDownload"

    catalogue = (await client("GET", "/v1/permissions")).json
    rows = (await client.search()).json["items"]

    assert (name in {one for group in catalogue for one in group["permissions"]}) is newer
    assert {name in row["metadata"]["annotations"]["permissions"] for row in rows} == {newer}
    assert newer or all("cluster.delete" in row["metadata"]["annotations"]["permissions"] for row in rows)


async def test_the_users_are_for_a_tenant_admin(world: tuple[Simulator, Client]) -> None:
    _, client = world

    (user,) = (await client("GET", "/v1/users", check=False)).json["items"]

    assert user["metadata"]["uid"] == client.instance.user_uid


async def test_absent_oidc_can_be_empty_strings(world: tuple[Simulator, Client]) -> None:
    _, client = world
    cluster = a_cluster(client.instance)
    client.instance.behaviour.absent_oidc = "empty-strings"

    reply = await client("GET", f"/v1/spectroclusters/{cluster.uid}/oidc", project=cluster.project_uid)

    assert (reply.json["issuerUrl"], reply.json["clientId"]) == ("", "")


async def test_the_framework_speaks_its_own_dialect_of_errors(world: tuple[Simulator, Client]) -> None:
    _, client = world
    unknown = await client("GET", "/v1/nonsense")
    withdrawn = await client("GET", "/v1/projects")
    no_json = await client("POST", SEARCH, data=b"{")
    no_object = await client("POST", SEARCH, json=[])

    assert (unknown.status, unknown.json) == (404, {"code": 404, "message": "path /v1/nonsense was not found"})
    assert withdrawn.status == 405
    assert withdrawn.json == {"code": 405, "message": "method GET is not allowed, but [POST] are"}
    assert (no_json.status, no_json.json["code"]) == (400, 400)
    assert (no_object.status, no_object.json["code"]) == (422, 601)


async def test_admin_kubeconfigs_come_plain_and_in_base64_and_follow_permission_and_state() -> None:
    async with simulated(instances=1, projects=1, clusters=16, tenant_scoped=0, oidc_share=0) as (sim, client):
        forms = Counter[bool]()
        for cluster in client.instance.clusters.values():
            path = f"/v1/spectroclusters/{cluster.uid}/assets/adminKubeconfig"
            reply = await client("GET", path, project=cluster.project_uid)
            plain = reply.body.startswith(b"apiVersion")
            forms[plain] += 1
            file = read_yaml(reply.body if plain else base64.b64decode(reply.body, validate=True))
            assert file["clusters"][0]["cluster"]["server"] == cluster.url
            assert file["current-context"] == "kubernetes-admin@kubernetes"
            assert "attachment" in reply.headers["Content-Disposition"]
        sim.world.set_admin_download(cluster.uid, allowed=False)
        denied = await client("GET", path, project=cluster.project_uid)
        sim.world.set_admin_download(cluster.uid, allowed=True)
        sim.world.set_state(cluster.uid, "Provisioning")
        not_yet = await client("GET", path, project=cluster.project_uid)

    assert min(forms[True], forms[False]) >= 3
    assert (denied.status, denied.json["code"]) == (403, "OperationForbidden")
    assert (not_yet.status, not_yet.json["code"]) == (404, "ResourceNotFound")


async def test_the_kubeconfig_of_an_oidc_cluster_names_kubelogin_and_the_proxy_only_if_asked(
    world: tuple[Simulator, Client],
) -> None:
    _, client = world
    cluster = a_cluster(client.instance, oidc=True)
    cluster.proxied = True
    path = f"/v1/spectroclusters/{cluster.uid}/assets/kubeconfig"

    files = []
    for frp in ("true", "false"):
        body = (await client("GET", path, project=cluster.project_uid, params={"frp": frp})).body
        files.append(read_yaml(body if body.startswith(b"api") else base64.b64decode(body)))
    plain = a_cluster(client.instance)
    not_offered = await client("GET", f"/v1/spectroclusters/{plain.uid}/assets/kubeconfig", project=plain.project_uid)

    assert files[0]["clusters"][0]["cluster"]["server"] == cluster.url.replace("127.0.0.1", "localhost")
    assert files[1]["clusters"][0]["cluster"]["server"] == cluster.url
    assert files[0]["users"][0]["user"]["exec"]["args"][:2] == ["oidc-login", "get-token"]
    assert not_offered.status == 404


async def test_the_issuer_of_an_oidc_cluster_can_be_discovered_with_the_ca_it_names(
    world: tuple[Simulator, Client],
) -> None:
    sim, client = world
    cluster = a_cluster(client.instance, oidc=True)
    spec = (await client("GET", f"/v1/spectroclusters/{cluster.uid}/oidc", project=cluster.project_uid)).json
    ca = base64.b64decode(spec["issuerTls"]["caCertificateBase64"]).decode()
    tls = ssl.create_default_context(cadata=ca)

    async with client.session.get(f"{spec['issuerUrl']}/.well-known/openid-configuration", ssl=tls) as response:
        discovery, cache = await response.json(), response.headers["Cache-Control"]
    async with client.session.get(discovery["jwks_uri"], ssl=tls) as response:
        keys = (await response.json())["keys"]

    assert discovery["issuer"] == spec["issuerUrl"]
    assert "max-age=" in cache
    assert {"kid", "kty", "n", "e"} <= set(keys[0])
    assert "d" not in keys[0]
    assert spec["clientSecret"] in sim.secrets()
    assert sim.requests.count("issuer") == 2


async def test_a_cluster_without_oidc_answers_an_empty_object_or_not_found(world: tuple[Simulator, Client]) -> None:
    _, client = world
    cluster = a_cluster(client.instance)
    path = f"/v1/spectroclusters/{cluster.uid}/oidc"

    empty = await client("GET", path, project=cluster.project_uid)
    client.instance.behaviour.absent_oidc = "not-found"
    absent = await client("GET", path, project=cluster.project_uid)

    assert (empty.status, empty.json) == (200, {})
    assert (absent.status, absent.json["code"]) == (404, "ResourceNotFound")


async def test_requests_above_the_limit_of_a_prefix_are_refused_without_json(world: tuple[Simulator, Client]) -> None:
    _, client = world
    client.instance.limiter = RateLimiter(lambda: 0.0)  # a slow machine would let the bucket fill again meanwhile
    cluster = a_cluster(client.instance)
    statuses = Counter[int]()
    for _ in range(60):
        reply = await client("GET", "/v1/users/info", check=False)
        statuses[reply.status] += 1
        last = reply
    other_prefix = await client("GET", f"/v1/spectroclusters/{cluster.uid}", project=cluster.project_uid)

    assert statuses == {200: 50, 429: 10}
    assert last.status == 429
    assert last.headers["Content-Type"].startswith("text/plain")
    assert "Retry-After" not in last.headers
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(last.body)
    assert other_prefix.status == 200

    client.instance.rate_limits = False
    assert (await client("GET", "/v1/users/info")).status == 200


async def test_downloads_of_all_clusters_share_one_bucket(world: tuple[Simulator, Client]) -> None:
    _, client = world
    client.instance.limiter = RateLimiter(lambda: 0.0)
    clusters = [c for c in client.instance.clusters.values() if c.project_uid and not c.oidc]
    statuses = Counter[int]()
    for number in range(60):
        cluster = clusters[number % len(clusters)]
        path = f"/v1/spectroclusters/{cluster.uid}/assets/adminKubeconfig"
        statuses[(await client("GET", path, project=cluster.project_uid, check=False)).status] += 1

    assert statuses == {200: 50, 429: 10}


async def test_changes_of_the_world_show_in_the_next_answer(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    cluster = a_cluster(client.instance)
    project = sim.world.add_project("alpha", "brand-new")
    added = await sim.world.add_cluster("alpha", project.uid, "fresh", oidc=True)
    sim.world.move_cluster(cluster.uid, project.uid)
    sim.world.set_state(cluster.uid, "Deleting")
    sim.world.set_health(cluster.uid, "UnHealthy")
    sim.world.rename_cluster(cluster.uid, "renamed")
    sim.world.rename_project(project.uid, "not-so-new")

    rows = {row["metadata"]["uid"]: row for row in (await client.search(project=project.uid)).json["items"]}

    assert set(rows) == {cluster.uid, added.uid}
    assert rows[cluster.uid]["status"]["state"] == "Deleting"
    assert rows[cluster.uid]["status"]["health"]["state"] == "UnHealthy"
    assert rows[cluster.uid]["metadata"]["name"] == "renamed"
    assert rows[added.uid]["specSummary"]["projectMeta"]["name"] == "not-so-new"
    assert rows[added.uid]["metadata"]["labels"] == {"auth": "oidc"}
    sim.world.remove_cluster(added.uid)
    sim.world.remove_project(project.uid)
    assert (await client.search(project=project.uid)).status == 404
    assert cluster.uid not in sim.world.clusters


def shape(sim: Simulator) -> Any:
    return [
        (i.name, [(p.uid, p.name) for p in i.projects.values()], [(c.uid, c.name, c.oidc) for c in i.clusters.values()])
        for i in sim.world.instances.values()
    ]


async def test_totals_are_spread_over_the_instances_and_the_seed_decides_the_rest() -> None:
    async with simulated(instances=2, projects=6, clusters=60, seed=7) as (first, _):
        clusters = first.world.clusters.values()
        instances = first.world.instances
        one = shape(first)
    async with simulated(instances=2, projects=6, clusters=60, seed=7) as (second, _):
        assert shape(second) == one
    async with simulated(instances=2, projects=6, clusters=60, seed=8) as (third, _):
        assert shape(third) != one

    assert list(instances) == ["alpha", "bravo"]
    assert [len(i.projects) for i in instances.values()] == [3, 3]
    assert [len(i.clusters) for i in instances.values()] == [30, 30]
    assert sum(c.oidc for c in clusters) == 20
    assert sum(c.project_uid is None for c in clusters) == 2
    assert {c.tags.count("auth:oidc") for c in clusters if c.oidc} == {1}


@pytest.mark.parametrize(
    "wrong", [{"instances": 0}, {"instances": 99}, {"clusters": -1}, {"oidc_share": 1.5}, {"latency": -1.0}]
)
def test_options_that_make_no_world_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"between|negative"):
        SimulatorOptions(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"listen": "localhost"}, "listen must be an IPv4 address"),
        ({"listen": "::"}, "listen must be an IPv4 address"),
        ({"listen": "0.0.0.0"}, "host must be the name"),
        ({"host": "simulator:443"}, "host must be a host name"),
        ({"host": ""}, "host must be a host name"),
        ({"host": "Simulator/"}, "host must be a host name"),
    ],
)
def test_an_address_that_nobody_could_reach_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatorOptions(**wrong)


async def test_a_dead_project_or_unknown_place_is_a_key_error(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    cluster = a_cluster(client.instance)

    with pytest.raises(KeyError):
        await sim.world.add_cluster("alpha", "0" * 24)
    with pytest.raises(KeyError):
        sim.world.move_cluster(cluster.uid, "0" * 24)
    with pytest.raises(KeyError):
        sim.world.project("0" * 24)
    assert (await client("GET", f"/v1/projects/{'0' * 24}")).json["code"] == "ResourceNotFound"


async def test_oidc_pausing_and_key_expiry_can_be_changed(world: tuple[Simulator, Client]) -> None:
    sim, client = world
    cluster = await sim.world.add_cluster("alpha", next(iter(client.instance.projects)), virtual=True)
    sim.world.set_oidc(cluster.uid, oidc=True)
    sim.world.set_paused(cluster.uid, paused=True)
    sim.world.set_key_expiry("alpha", datetime(2030, 1, 2, tzinfo=UTC))
    rows = {row["metadata"]["uid"]: row for row in (await client.search()).json["items"]}
    oidc = await client("GET", f"/v1/spectroclusters/{cluster.uid}/oidc", project=cluster.project_uid)
    keys = await client("GET", "/v1/apiKeys")

    assert rows[cluster.uid]["status"]["virtual"]["lifecycleStatus"]["status"] == "Paused"
    assert rows[cluster.uid]["specSummary"]["cloudConfig"]["cloudType"] == "nested"
    assert oidc.json["clientId"] == cluster.oidc_client_id
    assert keys.json["items"][0]["spec"]["expiry"] == "2030-01-02T00:00:00.000Z"


async def test_a_range_of_dates_and_a_missing_tag_are_searched(world: tuple[Simulator, Client]) -> None:
    _, client = world
    values = ["2026-01-15T08:00:00Z", "2026-01-15T08:35:00Z"]
    dates = {
        "property": "creationTimestamp",
        "type": "date",
        "condition": {"date": {"operator": "range", "match": {"values": values}}},
    }
    missing = {
        "property": "tags",
        "type": "keyValue",
        "condition": {"keyValue": {"key": "nowhere", "match": {"values": ["x"]}, "negation": True}},
    }
    whole = names(await client.search())

    assert names(await client.search(body=filtered(dates))) == whole[:3]
    assert names(await client.search(body=filtered(missing))) == whole
    bad = json.loads(json.dumps(dates).replace("2026-01-15T08:00:00Z", "yesterday"))
    assert (await client.search(body=filtered(bad))).status == 422
