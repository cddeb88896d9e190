"""The simulated API servers behave as Kubernetes does wherever this project depends on it."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from integration.store_builders import until
from palette_sync.simulator import Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from palette_sync.simulator.cluster import SimCluster

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
SPACE = "/api/v1/namespaces/tools"
TOKEN_TYPE = "kubernetes.io/service-account-token"
OWNER = "kubernetes.io/service-account.name"
EVERYTHING = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]


@dataclass(frozen=True)
class Reply:
    status: int
    json: Any

    @property
    def reason(self) -> str:
        assert self.json["kind"] == "Status"
        assert self.json["code"] == self.status
        return str(self.json["reason"])


def admin_tls(cluster: SimCluster, folder: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cadata=cluster.ca_pem)
    file = folder / f"{cluster.uid}.pem"
    file.write_bytes(cluster.admin_certificate + cluster.admin_key)
    tls.load_cert_chain(file)
    return tls


class Kube:
    """Speaks to one cluster: as administrator, or with `token` ("" = anonymously)."""

    def __init__(self, session: aiohttp.ClientSession, cluster: SimCluster, folder: Path) -> None:
        self.session = session
        self.cluster = cluster
        self.admin = admin_tls(cluster, folder)
        self.plain = ssl.create_default_context(cadata=cluster.ca_pem)

    async def __call__(
        self, method: str, path: str, body: Any = None, token: str | None = None, **options: Any
    ) -> Reply:
        headers = options.pop("headers", {})
        if token:
            headers["Authorization"] = f"Bearer {token}"
        tls = self.admin if token is None else self.plain
        async with self.session.request(
            method, self.cluster.url + path, json=body, headers=headers, ssl=tls, **options
        ) as response:
            raw = await response.read()
            is_json = response.headers["Content-Type"].startswith("application/json")
            return Reply(response.status, json.loads(raw) if is_json else raw.decode())

    async def make(self, path: str, name: str, **content: Any) -> Any:
        metadata = {"name": name, **content.pop("metadata", {})}
        reply = await self("POST", path, {"metadata": metadata, **content})
        assert reply.status == 201, reply.json
        return reply.json

    async def account(self, rules: Any = None) -> Any:
        """A namespace `tools` with the account `reader`, bound to a role of the same name, and a Secret `anchor`."""
        await self.make("/api/v1/namespaces", "tools")
        account = await self.make(f"{SPACE}/serviceaccounts", "reader")
        await self.make(f"{RBAC}/clusterroles", "reader", rules=EVERYTHING if rules is None else rules)
        subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": "tools"}]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}
        await self.make(f"{RBAC}/clusterrolebindings", "reader", roleRef=role, subjects=subjects)
        await self.make(f"{SPACE}/secrets", "anchor")
        return account

    async def request_token(self, **spec: Any) -> Reply:
        return await self("POST", f"{SPACE}/serviceaccounts/reader/token", {"spec": spec})

    async def bound_token(self, seconds: int = 3600) -> str:
        anchor = (await self("GET", f"{SPACE}/secrets/anchor")).json["metadata"]
        bound = {"kind": "Secret", "apiVersion": "v1", "name": "anchor", "uid": anchor["uid"]}
        reply = await self.request_token(expirationSeconds=seconds, boundObjectRef=bound)
        assert reply.status == 201, reply.json
        return str(reply.json["status"]["token"])

    async def allowed(self, token: str | None = None, **attributes: str) -> bool:
        reply = await self("POST", ACCESS, {"spec": {"resourceAttributes": attributes}}, token)
        assert reply.status == 201, reply.json
        return bool(reply.json["status"]["allowed"])


@asynccontextmanager
async def cluster_of(folder: Path, **options: Any) -> AsyncIterator[tuple[Simulator, Kube]]:
    async with (
        Simulator(SimulatorOptions(instances=1, projects=1, clusters=2, **options)) as sim,
        aiohttp.ClientSession() as session,
    ):
        yield sim, Kube(session, next(iter(sim.world.clusters.values())), folder)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[Simulator, Kube]]:
    async with cluster_of(tmp_path) as pair:
        yield pair


@pytest.fixture
async def kube(both: tuple[Simulator, Kube]) -> Kube:
    return both[1]


def claims_of(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


# Trust and identity.


async def test_version_and_health_answer_anonymously_and_nothing_else_does(kube: Kube) -> None:
    version = await kube("GET", "/version", token="")
    pods = await kube("GET", "/api/v1/pods", token="")
    discovery = await kube("GET", "/apis", token="")

    assert version.status == 200
    assert version.json["gitVersion"] == kube.cluster.version
    assert (await kube("GET", "/readyz", token="")).json == "ok"
    assert (pods.status, pods.reason) == (403, "Forbidden")
    assert 'User "system:anonymous" cannot list resource "pods"' in pods.json["message"]
    assert discovery.status == 403


async def test_each_cluster_is_trusted_by_its_own_ca_only(both: tuple[Simulator, Kube], tmp_path: Path) -> None:
    sim, kube = both
    other = list(sim.world.clusters.values())[1]
    foreign = Kube(kube.session, other, tmp_path)
    foreign.plain = kube.plain

    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await foreign("GET", "/version", token="")
    assert kube.cluster.ca_pem != other.ca_pem


async def test_a_client_certificate_of_another_cluster_is_not_accepted(
    both: tuple[Simulator, Kube], tmp_path: Path
) -> None:
    sim, kube = both
    other = list(sim.world.clusters.values())[1]
    mixed = ssl.create_default_context(cadata=other.ca_pem)
    mixed.load_cert_chain(tmp_path / f"{kube.cluster.uid}.pem")
    stranger = Kube(kube.session, other, tmp_path)
    stranger.admin = mixed

    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await stranger("GET", "/api/v1/pods")


async def test_a_renewed_authority_ends_the_trust_of_before(both: tuple[Simulator, Kube], tmp_path: Path) -> None:
    sim, kube = both
    sim.world.renew_authority(kube.cluster.uid)

    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await kube("GET", "/version", token="")
    assert (await Kube(kube.session, kube.cluster, tmp_path)("GET", "/api/v1/pods")).status == 200


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "e30.e30.e30"])
async def test_an_unknown_bearer_is_unauthorized_even_where_anonymous_may_read(kube: Kube, token: str) -> None:
    reply = await kube("GET", "/version", token=token)

    assert (reply.status, reply.reason) == (401, "Unauthorized")


async def test_the_administrator_lists_the_pods_of_a_fresh_cluster(kube: Kube) -> None:
    everywhere = (await kube("GET", "/api/v1/pods")).json
    shop = (await kube("GET", "/api/v1/namespaces/shop/pods")).json
    name = shop["items"][0]["metadata"]["name"]
    one = await kube("GET", f"/api/v1/namespaces/shop/pods/{name}")
    log = await kube("GET", f"/api/v1/namespaces/shop/pods/{name}/log")

    assert everywhere["kind"] == "PodList"
    assert len(everywhere["items"]) > len(shop["items"]) > 0
    assert one.json["metadata"]["name"] == name
    assert "started" in log.json


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/services", "ServiceList"),
        ("/api/v1/configmaps", "ConfigMapList"),
        ("/api/v1/limitranges", "LimitRangeList"),
        ("/api/v1/resourcequotas", "ResourceQuotaList"),
        ("/apis/apps/v1/deployments", "DeploymentList"),
        ("/apis/apps/v1/replicasets", "ReplicaSetList"),
        ("/apis/apps/v1/statefulsets", "StatefulSetList"),
        ("/apis/apps/v1/daemonsets", "DaemonSetList"),
        ("/apis/autoscaling/v2/horizontalpodautoscalers", "HorizontalPodAutoscalerList"),
        ("/apis/batch/v1/jobs", "JobList"),
        ("/apis/batch/v1/cronjobs", "CronJobList"),
        ("/apis/networking.k8s.io/v1/ingresses", "IngressList"),
        ("/apis/apps/v1/namespaces/shop/deployments", "DeploymentList"),
    ],
)
async def test_what_backstage_asks_for_is_listed(kube: Kube, path: str, kind: str) -> None:
    reply = await kube("GET", path)

    assert (reply.status, reply.json["kind"]) == (200, kind)


async def test_unknown_paths_groups_and_resources_are_not_found(kube: Kube) -> None:
    for path in ("/nonsense", "/apis/metrics.k8s.io/v1beta1/pods"):
        reply = await kube("GET", path)
        assert (reply.status, reply.json) == (404, "404 page not found\n")
    assert (await kube("GET", "/api/v1/nonsense")).reason == "NotFound"
    groups = (await kube("GET", "/apis")).json["groups"]
    listed = (await kube("GET", f"{RBAC}")).json["resources"]

    assert "apps" in [group["name"] for group in groups]
    assert {"clusterroles", "clusterrolebindings"} <= {r["name"] for r in listed}
    assert (await kube("GET", "/api")).json["versions"] == ["v1"]
    assert "pods" in [r["name"] for r in (await kube("GET", "/api/v1")).json["resources"]]


# Objects: creation, versions, preconditions, immutability.


async def test_created_objects_get_uid_version_and_time_and_cannot_be_created_twice(kube: Kube) -> None:
    first = await kube.make("/api/v1/namespaces", "tools")
    second = await kube.make(f"{SPACE}/serviceaccounts", "reader")
    again = await kube("POST", f"{SPACE}/serviceaccounts", {"metadata": {"name": "reader"}})

    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    assert second["metadata"]["creationTimestamp"].endswith("Z")
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert again.json["message"] == 'serviceaccounts "reader" already exists'


async def test_a_write_with_an_old_version_or_another_uid_conflicts(kube: Kube) -> None:
    role = await kube.make(f"{RBAC}/clusterroles", "reader", rules=EVERYTHING)
    path = f"{RBAC}/clusterroles/reader"
    changed = {**role, "rules": []}

    fresh = await kube("PUT", path, changed)
    stale = await kube("PUT", path, {**changed, "rules": EVERYTHING})
    unchanged = await kube("PUT", path, fresh.json)
    other_uid = {**fresh.json, "metadata": {**fresh.json["metadata"], "uid": "another"}}
    unconditional = {"metadata": {"name": "reader"}, "rules": EVERYTHING}

    assert fresh.status == 200
    assert int(fresh.json["metadata"]["resourceVersion"]) > int(role["metadata"]["resourceVersion"])
    assert fresh.json["metadata"]["uid"] == role["metadata"]["uid"]
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert unchanged.json["metadata"]["resourceVersion"] == fresh.json["metadata"]["resourceVersion"]
    assert (await kube("PUT", path, other_uid)).reason == "Conflict"
    assert (await kube("PUT", path, unconditional)).status == 200


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
async def test_a_deletion_with_a_wrong_precondition_conflicts(kube: Kube, field: str) -> None:
    role = await kube.make(f"{RBAC}/clusterroles", "reader", rules=[])
    path = f"{RBAC}/clusterroles/reader"

    refused = await kube("DELETE", path, {"preconditions": {field: "1"}})
    both = {key: role["metadata"][key] for key in ("uid", "resourceVersion")}
    deleted = await kube("DELETE", path, {"preconditions": both})

    assert (refused.status, refused.reason) == (409, "Conflict")
    assert (deleted.status, deleted.json["status"]) == (200, "Success")
    assert (await kube("DELETE", path)).reason == "NotFound"


async def test_the_type_of_a_secret_and_the_role_of_a_binding_cannot_change(kube: Kube) -> None:
    await kube.account()
    typed = await kube("PUT", f"{SPACE}/secrets/anchor", {"metadata": {"name": "anchor"}, "type": "other"})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    bound = await kube("PUT", f"{RBAC}/clusterrolebindings/reader", {"metadata": {"name": "reader"}, "roleRef": role})

    assert (typed.status, typed.reason) == (422, "Invalid")
    assert typed.json["details"]["causes"][0]["field"] == "type"
    assert (bound.status, bound.reason) == (422, "Invalid")
    assert "cannot change roleRef" in bound.json["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(f"{SPACE}/secrets", {"metadata": {"name": "Bad_Name"}}, id="an invalid name"),
        pytest.param(f"{SPACE}/secrets", {"metadata": {"name": "t"}, "type": TOKEN_TYPE}, id="a token without account"),
        pytest.param(f"{RBAC}/clusterroles", {"metadata": {"name": "r"}, "rules": [{"verbs": []}]}, id="no verbs"),
        pytest.param(
            f"{RBAC}/clusterroles", {"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}, id="no groups"
        ),
        pytest.param(f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}}, id="no role"),
        pytest.param(ACCESS, {"spec": {}}, id="a review of nothing"),
    ],
)
async def test_invalid_objects_are_refused(kube: Kube, path: str, body: Any) -> None:
    await kube.make("/api/v1/namespaces", "tools")
    reply = await kube("POST", path, body)

    assert (reply.status, reply.reason) == (422, "Invalid")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"kind": "Pod", "metadata": {"name": "x"}}, id="another kind"),
        pytest.param({"metadata": {"name": "x", "namespace": "elsewhere"}}, id="another namespace"),
        pytest.param({"metadata": {"name": "x"}, "data": {"a": "no base64!"}}, id="data that is no base64"),
        pytest.param({"metadata": {"name": "x", "resourceVersion": "5"}}, id="a version on creation"),
        pytest.param([], id="no object"),
    ],
)
async def test_bodies_that_contradict_the_path_are_bad_requests(kube: Kube, body: Any) -> None:
    await kube.make("/api/v1/namespaces", "tools")
    reply = await kube("POST", f"{SPACE}/secrets", body)

    assert (reply.status, reply.reason) == (400, "BadRequest")


async def test_merge_patches_are_applied_and_other_patches_refused(kube: Kube) -> None:
    await kube.make(f"{RBAC}/clusterroles", "reader", rules=EVERYTHING, metadata={"labels": {"a": "1", "b": "2"}})
    path = f"{RBAC}/clusterroles/reader"
    change = {"metadata": {"labels": {"a": None, "c": "3"}}}

    merged = await kube("PATCH", path, change, headers={"Content-Type": "application/merge-patch+json"})
    applied = await kube("PATCH", path, change, headers={"Content-Type": "application/apply-patch+yaml"})
    stale = {"metadata": {"resourceVersion": "1"}}
    conflicting = await kube("PATCH", path, stale, headers={"Content-Type": "application/merge-patch+json"})

    assert merged.json["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert merged.json["rules"] == EVERYTHING
    assert (applied.status, applied.reason) == (415, "UnsupportedMediaType")
    assert conflicting.reason == "Conflict"


async def test_lists_are_selected_by_label_and_field_and_paged(kube: Kube) -> None:
    await kube.make("/api/v1/namespaces", "tools")
    for number in range(5):
        label = {"owner": "me" if number % 2 else "you"}
        await kube.make(f"{SPACE}/secrets", f"s{number}", metadata={"labels": label})

    async def found(**params: str) -> list[str]:
        reply = await kube("GET", f"{SPACE}/secrets", params=params)
        return [item["metadata"]["name"] for item in reply.json["items"]]

    page = (await kube("GET", f"{SPACE}/secrets", params={"limit": "3"})).json
    rest = await found(limit="3", **{"continue": page["metadata"]["continue"]})

    assert await found(labelSelector="owner=me") == ["s1", "s3"]
    assert await found(labelSelector="owner!=me") == ["s0", "s2", "s4"]
    assert await found(labelSelector="!owner") == []
    assert await found(labelSelector="owner", fieldSelector="metadata.name=s2") == ["s2"]
    assert [item["metadata"]["name"] for item in page["items"]] + rest == ["s0", "s1", "s2", "s3", "s4"]


async def test_a_dry_run_writes_nothing(kube: Kube) -> None:
    reply = await kube("POST", "/api/v1/namespaces", {"metadata": {"name": "tools"}}, params={"dryRun": "All"})

    assert reply.status == 201
    assert (await kube("GET", SPACE)).status == 404
    assert kube.cluster.kube.writes == 0


async def test_a_missing_namespace_is_not_found_and_a_terminating_one_forbids_creation(kube: Kube) -> None:
    missing = await kube("POST", f"{SPACE}/secrets", {"metadata": {"name": "s"}})
    await kube.account()
    kube.cluster.kube.termination_delay = None
    terminating = await kube("DELETE", SPACE)
    refused = await kube("POST", f"{SPACE}/secrets", {"metadata": {"name": "s"}})
    still_there = await kube("GET", f"{SPACE}/secrets/anchor")
    kube.cluster.kube.finish_termination("tools")

    assert (missing.status, missing.reason) == (404, "NotFound")
    assert terminating.json["status"]["phase"] == "Terminating"
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert "because it is being terminated" in refused.json["message"]
    assert refused.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert still_there.status == 200
    assert (await kube("GET", SPACE)).status == 404
    assert (await kube("GET", f"{SPACE}/secrets/anchor")).status == 404
    assert (await kube("GET", f"{RBAC}/clusterroles/reader")).status == 200


async def test_a_deleted_namespace_vanishes_by_itself_with_what_it_holds(kube: Kube) -> None:
    await kube.account()
    await kube("DELETE", SPACE)

    async def gone() -> bool:
        return (await kube("GET", SPACE)).status == 404

    await until(gone)
    assert (await kube("GET", f"{SPACE}/serviceaccounts/reader")).status == 404


# Tokens.


async def test_a_requested_token_is_a_signed_jwt_that_opens_the_cluster(kube: Kube) -> None:
    account = await kube.account()
    before = int(time.time())
    reply = await kube.request_token(expirationSeconds=3600)
    token = reply.json["status"]["token"]
    claims = claims_of(token)

    assert reply.status == 201
    assert claims["sub"] == "system:serviceaccount:tools:reader"
    assert claims["iss"] == "https://kubernetes.default.svc.cluster.local"
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["iat"] >= before
    assert claims["kubernetes.io"]["serviceaccount"] == {"name": "reader", "uid": account["metadata"]["uid"]}
    assert reply.json["spec"]["expirationSeconds"] == 3600
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    assert kube.cluster.tokens.issued == 1


async def test_a_token_opens_no_other_cluster(both: tuple[Simulator, Kube], tmp_path: Path) -> None:
    sim, kube = both
    other = Kube(kube.session, list(sim.world.clusters.values())[1], tmp_path)
    await kube.account()
    await other.account()
    token = await kube.bound_token()

    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    assert (await other("GET", "/api/v1/pods", token=token)).status == 401


@pytest.mark.parametrize("seconds", [0, 599, (1 << 32) + 1, "600"])
async def test_a_validity_below_ten_minutes_or_beyond_reason_is_invalid(kube: Kube, seconds: Any) -> None:
    await kube.account()
    reply = await kube.request_token(expirationSeconds=seconds)

    assert (reply.status, reply.reason) == (422, "Invalid")


async def test_a_cap_shortens_what_is_granted_even_below_the_minimum(tmp_path: Path) -> None:
    async with cluster_of(tmp_path, token_cap=120) as (sim, kube):
        await kube.account()
        capped = await kube.request_token(expirationSeconds=86400)
        sim.world.set_token_cap(kube.cluster.uid, None)
        free = await kube.request_token(expirationSeconds=86400)

    claims = claims_of(capped.json["status"]["token"])
    assert claims["exp"] - claims["iat"] == 120
    assert capped.json["spec"]["expirationSeconds"] == 120
    assert free.json["spec"]["expirationSeconds"] == 86400


async def test_a_token_dies_when_its_time_has_passed(both: tuple[Simulator, Kube]) -> None:
    sim, kube = both
    await kube.account()
    token = await kube.bound_token(600)

    sim.world.advance(590)
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    sim.world.advance(20)
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 401


@pytest.mark.parametrize("path", ["secrets/anchor", "serviceaccounts/reader"])
async def test_a_bound_token_dies_with_its_secret_and_with_its_account(kube: Kube, path: str) -> None:
    await kube.account()
    token = await kube.bound_token()
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200

    await kube("DELETE", f"{SPACE}/{path}")
    dead = await kube("GET", "/api/v1/pods", token=token)
    plural, name = path.split("/")
    await kube.make(f"{SPACE}/{plural}", name)
    still_dead = await kube("GET", "/api/v1/pods", token=token)

    assert (dead.status, still_dead.status) == (401, 401)


async def test_a_bound_object_must_exist_with_that_uid(kube: Kube) -> None:
    await kube.account()
    reference = {"kind": "Secret", "apiVersion": "v1", "name": "anchor", "uid": "another"}

    other = await kube.request_token(boundObjectRef=reference)
    missing = await kube.request_token(boundObjectRef={**reference, "name": "nowhere"})
    unbindable = await kube.request_token(boundObjectRef={**reference, "kind": "ConfigMap"})

    assert (other.status, other.reason) == (409, "Conflict")
    assert (missing.status, missing.reason) == (404, "NotFound")
    assert (unbindable.status, unbindable.reason) == (400, "BadRequest")
    assert (await kube("POST", f"{SPACE}/serviceaccounts/nobody/token", {"spec": {}})).status == 404


async def test_revoked_tokens_are_dead_and_later_ones_live(kube: Kube) -> None:
    await kube.account()
    old = await kube.bound_token()
    kube.cluster.tokens.revoke_all()
    new = await kube.bound_token()

    assert (await kube("GET", "/api/v1/pods", token=old)).status == 401
    assert (await kube("GET", "/api/v1/pods", token=new)).status == 200


async def test_a_persons_token_is_that_person_here_and_nobody_elsewhere(both: tuple[Simulator, Kube]) -> None:
    sim, kube = both
    token = kube.cluster.tokens.for_user("jo", ["system:masters"])
    powerless = kube.cluster.tokens.for_user("jo", [])
    other = next(one for one in sim.world.clusters.values() if one is not kube.cluster)

    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    assert (await kube("GET", "/api/v1/pods", token=powerless)).status == 403
    assert (await kube("GET", "/api/v1/pods", token=other.tokens.for_user("jo", ["system:masters"]))).status == 401
    sim.world.advance(7200)
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 401


async def test_a_token_for_another_audience_is_not_accepted(kube: Kube) -> None:
    await kube.account()
    reply = await kube.request_token(audiences=["vault"])

    assert (await kube("GET", "/api/v1/pods", token=reply.json["status"]["token"])).status == 401


async def test_a_token_secret_is_filled_after_a_while_and_its_token_never_expires(
    both: tuple[Simulator, Kube],
) -> None:
    sim, kube = both
    account = await kube.account()
    path = f"{SPACE}/secrets/legacy"
    kube.cluster.kube.fill_delay = 0.2
    created = await kube.make(
        f"{SPACE}/secrets", "legacy", type=TOKEN_TYPE, metadata={"annotations": {OWNER: "reader"}}
    )

    async def filled() -> Any:
        reply = await kube("GET", path)
        return reply.json if "data" in reply.json else None

    secret = await until(filled)
    token = base64.b64decode(secret["data"]["token"]).decode()
    sim.world.advance(10 * 365 * 86400)

    assert "data" not in created
    assert base64.b64decode(secret["data"]["ca.crt"]).decode() == kube.cluster.ca_pem
    assert base64.b64decode(secret["data"]["namespace"]) == b"tools"
    assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    assert "exp" not in claims_of(token)
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    assert kube.cluster.tokens.issued == 0
    await kube("DELETE", f"{SPACE}/serviceaccounts/reader")
    assert (await kube("GET", path)).status == 404
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 401


async def test_a_token_secret_of_a_missing_account_is_deleted(kube: Kube) -> None:
    await kube.account()
    annotations = {OWNER: "nobody"}
    await kube.make(f"{SPACE}/secrets", "orphan", type=TOKEN_TYPE, metadata={"annotations": annotations})

    async def gone() -> bool:
        return (await kube("GET", f"{SPACE}/secrets/orphan")).status == 404

    await until(gone)


# Rights.


@pytest.mark.parametrize(
    ("rule", "wanted", "allowed"),
    [
        pytest.param(
            {"resources": ["*"]}, {"resource": "pods", "subresource": "exec"}, True, id="a star covers subresources"
        ),
        pytest.param({"resources": ["pods"]}, {"resource": "pods"}, True, id="a named resource"),
        pytest.param(
            {"resources": ["pods"]},
            {"resource": "pods", "subresource": "log"},
            False,
            id="no subresource by its parent",
        ),
        pytest.param(
            {"resources": ["pods/log"]}, {"resource": "pods", "subresource": "log"}, True, id="a named subresource"
        ),
        pytest.param({"resources": ["pods/log"]}, {"resource": "pods"}, False, id="no parent by its subresource"),
        pytest.param(
            {"resources": ["*/status"]}, {"resource": "pods", "subresource": "status"}, True, id="a subresource of all"
        ),
        pytest.param({"resources": ["*/status"]}, {"resource": "pods"}, False, id="only the subresource of all"),
        pytest.param({"apiGroups": ["apps"], "resources": ["*"]}, {"resource": "pods"}, False, id="another group"),
        pytest.param(
            {"apiGroups": ["*"], "resources": ["*"]},
            {"group": "apps", "resource": "deployments"},
            True,
            id="every group",
        ),
        pytest.param({"resources": ["pods"], "verbs": ["get"]}, {"resource": "pods"}, False, id="another verb"),
        pytest.param(
            {"resources": ["pods"], "verbs": ["*"]}, {"resource": "pods", "verb": "delete"}, True, id="every verb"
        ),
        pytest.param(
            {"resources": ["pods"], "resourceNames": ["a"]},
            {"resource": "pods", "name": "a"},
            True,
            id="the named object",
        ),
        pytest.param(
            {"resources": ["pods"], "resourceNames": ["a"]},
            {"resource": "pods", "name": "b"},
            False,
            id="another object",
        ),
        pytest.param(
            {"resources": ["pods"], "resourceNames": ["a"]}, {"resource": "pods"}, False, id="a list, names given"
        ),
    ],
)
async def test_access_reviews_follow_the_rules(kube: Kube, rule: Any, wanted: Any, *, allowed: bool) -> None:
    await kube.account([{"apiGroups": [""], "verbs": ["list"], **rule}])
    token = await kube.bound_token()

    assert await kube.allowed(token, **{"verb": "list", **wanted}) is allowed


async def test_a_right_that_is_not_granted_is_forbidden_and_says_what_was_wanted(kube: Kube) -> None:
    await kube.account([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    token = await kube.bound_token()
    reply = await kube("GET", f"{SPACE}/secrets", token=token)
    writing = await kube("POST", f"{SPACE}/secrets", {"metadata": {"name": "x"}}, token=token)

    assert (await kube("GET", "/api/v1/pods", token=token)).status == 200
    assert (reply.status, reply.reason) == (403, "Forbidden")
    assert reply.json["message"] == (
        'secrets is forbidden: User "system:serviceaccount:tools:reader" cannot list resource "secrets" '
        'in API group "" in the namespace "tools"'
    )
    assert writing.status == 403


async def test_rights_follow_the_role_at_once(kube: Kube) -> None:
    await kube.account()
    token = await kube.bound_token()
    kube.cluster.kube.patch("ClusterRole", None, "reader", {"rules": []})
    denied = await kube("GET", "/api/v1/pods", token=token)
    still_reviews = await kube.allowed(token, verb="list", resource="pods")

    assert denied.status == 403
    assert still_reviews is False
    assert await kube.allowed(None, verb="delete", resource="nodes") is True


async def test_a_role_binding_allows_in_its_namespace_only(kube: Kube) -> None:
    await kube.account([])
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": "tools"}]
    await kube.make(f"{RBAC}/namespaces/shop/rolebindings", "viewer", roleRef=role, subjects=subjects)
    token = await kube.bound_token()

    assert (await kube("GET", "/api/v1/namespaces/shop/pods", token=token)).status == 200
    assert (await kube("GET", "/api/v1/namespaces/default/pods", token=token)).status == 403


async def test_nobody_grants_rights_that_he_does_not_hold(kube: Kube) -> None:
    pods, secrets = ([{"apiGroups": [""], "resources": [one], "verbs": ["get"]}] for one in ("pods", "secrets"))
    roles = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles", "clusterrolebindings"]}
    writes = [{**roles, "verbs": ["create", "patch"]}]
    await kube.account(writes + pods)
    token = await kube.bound_token()

    async def writes_role(name: str, rules: Any, method: str = "POST") -> Reply:
        path = f"{RBAC}/clusterroles" + ("" if method == "POST" else f"/{name}")
        headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        return await kube(method, path, {"metadata": {"name": name}, "rules": rules}, token, headers=headers)

    async def binds(name: str, role: str) -> Reply:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": []}
        return await kube("POST", f"{RBAC}/clusterrolebindings", body, token)

    assert (await writes_role("held", pods)).status == 201
    assert (await binds("held", "held")).status == 201
    for reply in (
        await writes_role("wider", secrets),
        await writes_role("held", secrets, "PATCH"),
        await writes_role("wildcard", EVERYTHING),
        await binds("admin", "cluster-admin"),
    ):
        assert (reply.status, reply.reason) == (403, "Forbidden")
        assert "attempting to grant RBAC permissions not currently held" in reply.json["message"]
    assert 'Resources:["secrets"], Verbs:["get"]' in (await writes_role("wider", secrets)).json["message"]

    rules = [*writes, {**roles, "verbs": ["escalate", "bind"]}]
    kube.cluster.kube.patch("ClusterRole", None, "reader", {"rules": rules})
    assert (await writes_role("wider", secrets)).status == 201
    assert (await binds("admin", "cluster-admin")).status == 201


async def test_who_am_i_and_reviews_of_paths_are_answered(kube: Kube) -> None:
    await kube.account()
    token = await kube.bound_token()
    who = await kube("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, token)
    path = {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/version"}}}
    hidden = {"spec": {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}}

    assert who.json["status"]["userInfo"]["username"] == "system:serviceaccount:tools:reader"
    assert (await kube("POST", ACCESS, path, token)).json["status"]["allowed"] is True
    assert (await kube("POST", ACCESS, hidden, token)).json["status"]["allowed"] is False


# The hand of a test.


async def test_drift_beyond_the_rules_of_the_api_can_be_made_by_hand(kube: Kube) -> None:
    await kube.account()
    store = kube.cluster.kube
    before = store.get("ClusterRoleBinding", None, "reader")
    assert before is not None
    store.patch("clusterrolebindings", None, "reader", {"roleRef": {"name": "cluster-admin"}})
    store.put("Secret", "tools", "anchor", {"type": "strange"})
    removed = store.remove("ServiceAccount", "tools", "reader")

    after = (await kube("GET", f"{RBAC}/clusterrolebindings/reader")).json
    secret = (await kube("GET", f"{SPACE}/secrets/anchor")).json
    assert after["roleRef"]["name"] == "cluster-admin"
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert secret["type"] == "strange"
    assert removed
    assert store.get("ServiceAccount", "tools", "reader") is None
    assert not store.remove("ServiceAccount", "tools", "reader")
    assert store.remove("Namespace", None, "tools")
    assert store.names("secrets", "tools") == []
    with pytest.raises(KeyError):
        store.patch("Secret", "tools", "anchor", {})


# Size.


async def test_three_hundred_clusters_start_without_keys_and_certificates_and_each_answers_when_asked() -> None:
    async with (
        Simulator(SimulatorOptions(clusters=300)) as sim,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16, force_close=True)) as session,
    ):
        clusters = list(sim.world.clusters.values())
        costly = {"authority", "admin_certificate", "kube", "tokens"}
        assert not [cluster.name for cluster in clusters if costly & vars(cluster).keys()]

        async def ask(cluster: SimCluster) -> int:
            tls = ssl.create_default_context(cadata=cluster.ca_pem)
            async with session.get(f"{cluster.url}/version", ssl=tls) as response:
                return response.status

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(cluster)) for cluster in clusters[::10]]

    assert len(clusters) == len({cluster.url for cluster in clusters}) == 300
    assert {task.result() for task in tasks} == {200}


# Smaller rules.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/version"),
        ("DELETE", "/api/v1/namespaces/shop/pods"),
        ("POST", "/api/v1/pods"),
        ("GET", ACCESS),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/default/token"),
    ],
)
async def test_methods_that_a_path_does_not_have_are_refused(kube: Kube, method: str, path: str) -> None:
    reply = await kube(method, path, {} if method == "POST" else None)

    assert (reply.status, reply.reason) == (405, "MethodNotAllowed")


async def test_a_deleted_account_is_returned_and_a_status_can_be_read(kube: Kube) -> None:
    await kube.account()
    deleted = await kube("DELETE", f"{SPACE}/serviceaccounts/reader")
    status = await kube("GET", "/apis/apps/v1/namespaces/shop/deployments/cart/status")
    unknown = await kube("GET", "/apis/apps/v1/namespaces/shop/deployments/cart/nonsense")

    assert deleted.json["kind"] == "ServiceAccount"
    assert status.json["status"]["readyReplicas"] == 2
    assert (unknown.status, unknown.reason) == (404, "NotFound")


async def test_an_immutable_secret_keeps_its_data(kube: Kube) -> None:
    await kube.make("/api/v1/namespaces", "tools")
    made = await kube.make(f"{SPACE}/secrets", "fixed", stringData={"a": "1"}, immutable=True)
    changed = await kube("PUT", f"{SPACE}/secrets/fixed", {**made, "data": {"a": "Mg=="}})

    assert made["data"] == {"a": "MQ=="}
    assert (changed.status, changed.reason) == (422, "Invalid")


async def test_a_name_can_be_generated_and_must_not_be_missing(kube: Kube) -> None:
    await kube.make("/api/v1/namespaces", "tools")
    made = await kube("POST", f"{SPACE}/secrets", {"metadata": {"generateName": "gen-"}})
    nameless = await kube("POST", f"{SPACE}/secrets", {"metadata": {}})

    assert made.json["metadata"]["name"].startswith("gen-")
    assert (nameless.status, nameless.reason) == (422, "Invalid")


@pytest.mark.parametrize("subject", [{"kind": "Robot", "name": "x"}, {"kind": "ServiceAccount", "name": "x"}])
async def test_a_binding_with_an_impossible_subject_is_invalid(kube: Kube, subject: Any) -> None:
    body = {"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [subject]}
    reply = await kube("POST", f"{RBAC}/clusterrolebindings", body)

    assert (reply.status, reply.reason) == (422, "Invalid")


async def test_a_user_of_a_role_in_a_namespace_is_bound_by_name(kube: Kube) -> None:
    await kube.account([])
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    await kube.make(f"{RBAC}/namespaces/shop/roles", "local", rules=[rule])
    subject = {"kind": "User", "name": "system:serviceaccount:tools:reader"}
    role = {"kind": "Role", "name": "local"}
    await kube.make(f"{RBAC}/namespaces/shop/rolebindings", "local", roleRef=role, subjects=[subject])
    token = await kube.bound_token()

    assert (await kube("GET", "/api/v1/namespaces/shop/pods", token=token)).status == 200
    assert (await kube("GET", "/api/v1/pods", token=token)).status == 403


async def test_a_broken_page_mark_and_a_watch_are_refused(kube: Kube) -> None:
    mark = await kube("GET", "/api/v1/pods", params={"limit": "x"})
    watch = await kube("GET", "/api/v1/pods", params={"watch": "true"})

    assert (mark.status, mark.reason) == (400, "BadRequest")
    assert (watch.status, watch.reason) == (405, "MethodNotAllowed")
