"""Faults do what they say to whom they say; the log counts exactly; the control API drives it all from outside."""

from __future__ import annotations

import asyncio
import json
import ssl
import stat
import sys
import time
import tomllib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from integration.store_builders import until
from palette_sync.simulator import Fault, Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from palette_sync.simulator.cluster import SimCluster, SimInstance

INFO = "/v1/users/info"


class Wire:
    """Plain requests to either side of the simulated world."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.session = session
        self.tls: dict[str, ssl.SSLContext] = {}

    @property
    def alpha(self) -> SimInstance:
        return self.sim.world.instances["alpha"]

    @property
    def cluster(self) -> SimCluster:
        return next(c for c in self.alpha.clusters.values() if c.project_uid is not None)

    async def palette(self, path: str = INFO, *, instance: str = "alpha", method: str = "GET", **headers: str) -> Any:
        home = self.sim.world.instances[instance]
        return await self._ask(method, home.url + path, home.ca_pem, {"ApiKey": home.api_key, **headers})

    async def kube(self, path: str = "/version", *, cluster: SimCluster | None = None, **headers: str) -> Any:
        asked = cluster or self.cluster
        return await self._ask("GET", asked.url + path, asked.ca_pem, headers)

    async def _ask(self, method: str, url: str, ca: str, headers: dict[str, str]) -> Any:
        tls = self.tls.setdefault(ca, ssl.create_default_context(cadata=ca))
        async with self.session.request(method, url, headers=headers, ssl=tls, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()

    async def control(self, method: str, path: str, body: Any = None, status: int = 200, **params: str) -> Any:
        url = self.sim.control_url + path
        async with self.session.request(method, url, json=body, params=params) as response:
            document = await response.json()
            assert response.status == status, document
            return document


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Simulator(SimulatorOptions(clusters=8)) as sim, aiohttp.ClientSession() as session:
        yield Wire(sim, session)


async def test_a_status_fault_answers_with_its_headers_and_body_as_often_as_it_says(wire: Wire) -> None:
    headers = {"Retry-After": "7"}
    wire.sim.faults.add(Fault(target="palette", kind="status", status=429, headers=headers, body="slow down", times=2))

    answers = [await wire.palette() for _ in range(3)]

    assert [status for status, *_ in answers] == [429, 429, 200]
    assert answers[0][1]["Retry-After"] == "7"
    assert answers[0][2] == b"slow down"
    assert wire.sim.faults.standing()[0].hits == 2
    assert wire.sim.requests.count("palette") == 3


async def test_a_fault_hits_only_what_its_selectors_name(wire: Wire) -> None:
    one, other, *_ = wire.alpha.clusters.values()
    project, elsewhere, *_ = wire.alpha.projects
    add = wire.sim.faults.add
    add(Fault(target="palette", kind="status", instance="bravo"))
    add(Fault(target="palette", kind="status", status=501, path="/spectroclusters/meta$", project_uid=project))
    add(Fault(target="palette", kind="status", status=502, path="^/v1/dashboard/projects$", method="POST"))
    add(Fault(target="kube", kind="status", status=503, cluster=one.uid))
    add(Fault(target="issuer", kind="status", status=504))
    meta = "/v1/dashboard/spectroclusters/meta"
    well_known = f"/v1/oidc/tenant/{wire.alpha.tenant_uid}/.well-known/openid-configuration"

    assert (await wire.palette())[0] == 200
    assert (await wire.palette(instance="bravo"))[0] == 500
    assert (await wire.palette(meta, ProjectUid=project))[0] == 501
    assert (await wire.palette(meta, ProjectUid=elsewhere))[0] == 200
    assert (await wire.palette(meta))[0] == 200
    assert (await wire.palette("/v1/dashboard/projects", method="POST"))[0] == 502
    assert (await wire.palette("/v1/dashboard/projects/metadata"))[0] == 200
    assert (await wire.kube(cluster=one))[0] == 503
    assert (await wire.kube(cluster=other))[0] == 200
    assert (await wire.palette(well_known))[0] == 504


async def test_removed_and_cleared_faults_are_gone(wire: Wire) -> None:
    first = wire.sim.faults.add(Fault(target="palette", kind="status", status=503))
    wire.sim.faults.add(Fault(target="palette", kind="status", status=502))

    assert (await wire.palette())[0] == 503
    assert wire.sim.faults.remove(first)
    assert not wire.sim.faults.remove(first)
    assert (await wire.palette())[0] == 502
    wire.sim.faults.clear()
    assert (await wire.palette())[0] == 200


async def test_a_hang_lasts_until_the_client_leaves(wire: Wire) -> None:
    wire.sim.faults.add(Fault(target="kube", kind="hang", times=1))

    hanging = asyncio.create_task(wire.kube())
    await until(wire.sim.requests.count)
    hanging.cancel()
    await asyncio.wait({hanging})

    assert hanging.cancelled()
    assert (await wire.kube())[0] == 200
    assert [entry.status for entry in wire.sim.requests.entries] == [None, 200]


async def test_a_hanging_request_does_not_hold_up_the_end_of_the_simulator() -> None:
    async with aiohttp.ClientSession() as session:
        async with Simulator(SimulatorOptions(clusters=1)) as sim:
            wire = Wire(sim, session)
            sim.faults.add(Fault(target="palette", kind="hang"))
            hanging = asyncio.create_task(wire.palette())
            await until(sim.requests.count)
            started = time.monotonic()
        with pytest.raises(aiohttp.ClientError):
            await hanging
        assert time.monotonic() - started < 30  # a server that waits for its requests waits a minute


async def test_a_slow_body_begins_at_once_and_dribbles(wire: Wire) -> None:
    tls = ssl.create_default_context(cadata=wire.alpha.ca_pem)
    headers = {"ApiKey": wire.alpha.api_key}
    wire.sim.faults.add(Fault(target="palette", kind="slow-body", seconds=3600, times=1))
    async with wire.session.get(wire.alpha.url + INFO, headers=headers, ssl=tls) as response:
        assert response.status == 200  # an hour before the first byte of the body

    wire.sim.faults.add(Fault(target="palette", kind="slow-body", seconds=0.005, times=1))
    started = time.monotonic()
    async with wire.session.get(wire.alpha.url + INFO, headers=headers, ssl=tls) as response:
        body = await response.read()

    assert json.loads(body)["orgName"] == wire.alpha.org_name
    assert time.monotonic() - started >= 0.2


async def test_a_truncated_body_is_shorter_than_announced(wire: Wire) -> None:
    wire.sim.faults.add(Fault(target="palette", kind="truncate", times=1))

    with pytest.raises(aiohttp.ClientPayloadError):
        await wire.palette()

    assert (await wire.palette())[0] == 200


@pytest.mark.parametrize("target", ["palette", "kube"])
async def test_garbage_is_a_success_that_nobody_can_read(wire: Wire, target: Any) -> None:
    wire.sim.faults.add(Fault(target=target, kind="garbage"))
    status, _, body = await (wire.palette() if target == "palette" else wire.kube())

    assert status == 200
    with pytest.raises(ValueError, match=r"codec|Expecting"):
        json.loads(body)


async def test_a_dropped_request_has_no_effect_and_a_lost_answer_has(wire: Wire) -> None:
    cluster = wire.cluster
    body = {"metadata": {"name": "tools"}}
    cluster.kube.put("ClusterRoleBinding", None, "all", _all_may_do_all())

    async def create() -> int:
        tls = ssl.create_default_context(cadata=cluster.ca_pem)
        async with wire.session.post(cluster.url + "/api/v1/namespaces", json=body, ssl=tls) as response:
            return response.status

    wire.sim.faults.add(Fault(target="kube", kind="drop", times=1))
    with pytest.raises(aiohttp.ClientConnectionError):
        await create()
    assert cluster.kube.get("Namespace", None, "tools") is None

    wire.sim.faults.add(Fault(target="kube", kind="lost-answer", times=1))
    with pytest.raises(aiohttp.ClientConnectionError):
        await create()
    assert cluster.kube.get("Namespace", None, "tools") is not None
    assert await create() == 409


def _all_may_do_all() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    subjects = [{"kind": "Group", "apiGroup": group, "name": "system:unauthenticated"}]
    return {"roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}, "subjects": subjects}


async def test_a_redirect_leads_where_it_says(wire: Wire) -> None:
    wire.sim.faults.add(Fault(target="kube", kind="redirect", location="https://127.0.0.1:9/trap"))
    status, headers, _ = await wire.kube()

    assert (status, headers["Location"]) == (307, "https://127.0.0.1:9/trap")


async def test_latency_adds_up_and_leaves_the_answer_alone(wire: Wire) -> None:
    wire.sim.latency = 0.05
    wire.sim.faults.add(Fault(target="kube", kind="latency", seconds=0.1))
    wire.sim.faults.add(Fault(target="kube", kind="status", status=503, times=1))
    started = time.monotonic()

    assert (await wire.kube())[0] == 503
    assert (await wire.kube())[0] == 200
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "magic"}, {"target": "mars"}, {"path": "("}, {"times": 0}],
    ids=["kind", "target", "path", "times"],
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no fault|regular expression|times"):
        Fault(**{"target": "kube", "kind": "drop", **wrong})


async def test_a_shut_api_server_refuses_connections_while_palette_lists_on(wire: Wire) -> None:
    cluster = wire.cluster
    wire.sim.world.shut_api_server(cluster.uid)

    with pytest.raises(aiohttp.ClientConnectorError):
        await wire.kube(cluster=cluster)
    listed = json.loads((await wire.palette("/v1/dashboard/spectroclusters/meta"))[2])
    assert cluster.uid in {row["metadata"]["uid"] for row in listed}


async def test_an_api_server_that_was_shut_listens_again_on_its_port(wire: Wire) -> None:
    cluster = wire.cluster
    url = cluster.url
    await wire.control("POST", f"/clusters/{cluster.uid}/shut")

    await wire.control("POST", f"/clusters/{cluster.uid}/open")

    assert cluster.url == url
    assert (await wire.kube(cluster=cluster))[0] == 200


async def test_a_removed_cluster_answers_no_more_not_even_on_a_standing_connection(wire: Wire) -> None:
    cluster = wire.cluster
    assert (await wire.kube(cluster=cluster))[0] == 200
    wire.sim.world.remove_cluster(cluster.uid)

    with pytest.raises(aiohttp.ClientError):
        await wire.kube(cluster=cluster)
    with pytest.raises(KeyError):
        wire.sim.world.cluster(cluster.uid)


async def test_requests_are_counted_by_every_selector_and_credentials_by_kind_only(wire: Wire) -> None:
    cluster = wire.cluster
    bearer = "canary-bearer"
    await wire.palette()
    await wire.palette("/v1/dashboard/projects", method="POST")
    await wire.palette(f"/v1/spectroclusters/{cluster.uid}/status?x=1", ProjectUid=cluster.project_uid or "")
    await wire.palette(instance="bravo")
    await wire.kube()
    await wire.kube("/api/v1/pods", Authorization=f"Bearer {bearer}")
    log = wire.sim.requests

    assert log.count() == 6
    assert log.count("palette") == 4
    assert log.count("palette", instance="bravo") == 1
    assert log.count(method="POST") == 1
    assert log.count("kube", cluster=cluster.uid) == 2
    assert log.count(path_regex=r"/status$|/info$") == 3
    assert [entry.credential for entry in log.entries] == ["api-key"] * 4 + ["anonymous", "bearer"]
    assert log.entries[2].project_uid == cluster.project_uid
    assert log.entries[2].query == "x=1"
    assert log.entries[-1].status == 401
    assert not [s for s in (*wire.sim.secrets(), bearer) if s in repr(log.entries)]
    log.reset()
    assert (log.count(), len(log.entries)) == (0, 0)


async def test_counters_stay_exact_when_the_log_forgets() -> None:
    async with Simulator(SimulatorOptions(clusters=1, rate_limits=False)) as sim, aiohttp.ClientSession() as session:
        wire = Wire(sim, session)
        sim.requests.entries = type(sim.requests.entries)(maxlen=3)
        for _ in range(10):
            await wire.palette()

        assert sim.requests.count() == 10
        assert len(sim.requests.entries) == 3


async def test_the_control_api_lists_writes_to_clusters_with_their_clients(wire: Wire) -> None:
    cluster = wire.cluster
    review, roles = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/api/v1/namespaces"
    await wire.kube()
    for path, agent in ((review, "a"), (roles, "b"), (roles, "c")):
        tls = ssl.create_default_context(cadata=cluster.ca_pem)
        async with wire.session.post(cluster.url + path, headers={"User-Agent": agent}, ssl=tls):
            pass

    found = await wire.control("GET", "/writes", after="1")

    assert found["number"] == 2
    assert [(one["path"], one["user_agent"], one["cluster"]) for one in found["writes"]] == [(roles, "c", cluster.uid)]
    assert len((await wire.control("GET", "/writes"))["writes"]) == 2
    wire.sim.requests.reset()
    assert await wire.control("GET", "/writes") == {"number": 0, "writes": []}


# The control API.


async def test_the_control_api_changes_projects_and_clusters(wire: Wire) -> None:
    project = (await wire.control("POST", "/projects", {"instance": "alpha", "name": "new"}, 201))["uid"]
    body = {"instance": "alpha", "project": project, "name": "fresh", "oidc": True, "tags": ["a:b"]}
    made = await wire.control("POST", "/clusters", body, 201)
    cluster = wire.sim.world.cluster(made["uid"])
    changes = {"state": "Error", "health": "UnHealthy", "tags": ["x"], "project": None, "token_cap": 60, "paused": True}
    await wire.control("PATCH", f"/clusters/{cluster.uid}", {**changes, "admin_download": False, "name": "renamed"})
    await wire.control("PATCH", f"/clusters/{cluster.uid}", {"imported": "read-only"})
    behaviour = {"listing_lie": "half", "bad_key": "not-found", "admin_permission": False}
    await wire.control("PATCH", "/instances/alpha", {"behaviour": behaviour})
    await wire.control("PATCH", f"/projects/{project}", {"name": "renamed"})
    shown = await wire.control("GET", f"/clusters/{cluster.uid}")
    await wire.control("PATCH", "/instances/alpha", {"key_permission": "project", "key_projects": [project]})

    assert cluster.oidc
    assert (cluster.state, cluster.health, cluster.tags, cluster.project_uid) == ("Error", "UnHealthy", ["x"], None)
    assert (cluster.token_cap, cluster.admin_download, cluster.paused) == (60, False, True)
    assert (cluster.imported, cluster.import_mode) == (True, "read-only")
    assert (wire.alpha.behaviour.listing_lie, wire.alpha.behaviour.admin_permission) == ("half", False)
    assert shown["name"] == "renamed"
    assert wire.sim.world.project(project).name == "renamed"
    assert wire.alpha.key_projects == frozenset({project})
    await wire.control("DELETE", f"/clusters/{cluster.uid}")
    await wire.control("DELETE", f"/projects/{project}")
    whole = json.dumps(await wire.control("GET", "/"))
    assert cluster.uid not in whole
    assert project not in whole


async def test_the_control_api_makes_drift_and_hides_the_data_of_secrets(wire: Wire) -> None:
    cluster = wire.cluster
    kube = f"/clusters/{cluster.uid}/kube"
    await wire.control("PUT", f"{kube}/ClusterRole/-/reader", {"rules": []})
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    await wire.control("PATCH", f"{kube}/clusterroles/-/reader", {"rules": [rule]})
    await wire.control("PUT", f"{kube}/Secret/shop/s", {"data": {"token": "Y2FuYXJ5"}})
    secret = await wire.control("GET", f"{kube}/Secret/shop/s")
    names = await wire.control("GET", f"{kube}/clusterroles")

    stored = cluster.kube.get("ClusterRole", None, "reader")
    assert stored is not None
    assert stored["rules"] == [rule]
    assert secret["data"] == {"token": ""}
    assert "reader" in names["-"]
    await wire.control("DELETE", f"{kube}/clusterroles/-/reader")
    assert cluster.kube.get("ClusterRole", None, "reader") is None
    await wire.control("DELETE", f"{kube}/clusterroles/-/reader", status=404)
    await wire.control("GET", f"{kube}/clusterroles/-/reader", status=404)
    await wire.control("POST", f"/clusters/{cluster.uid}/revoke-tokens")
    old = cluster.ca_pem
    await wire.control("POST", f"/clusters/{cluster.uid}/renew-authority")
    assert cluster.ca_pem != old
    await wire.control("POST", f"/clusters/{cluster.uid}/shut")
    with pytest.raises(aiohttp.ClientConnectorError):
        await wire.kube(cluster=cluster)


async def test_the_control_api_drives_faults_counters_latency_and_clock(wire: Wire) -> None:
    fault = {"target": "palette", "kind": "status", "status": 503, "path": "info", "times": 1}
    made = (await wire.control("POST", "/faults", fault, 201))["id"]
    status = (await wire.palette())[0]
    standing = await wire.control("GET", "/faults")
    requests = await wire.control("GET", "/requests", last="5")
    before = wire.sim.world.now()

    assert status == 503
    assert (standing[0]["id"], standing[0]["hits"], standing[0]["remaining"]) == (made, 1, 0)
    assert [(r["path"], r["status"]) for r in requests] == [(INFO, 503)]
    assert await wire.control("GET", "/requests/count", target="palette", path_regex="info") == {"count": 1}
    await wire.control("DELETE", f"/faults/{made}")
    await wire.control("DELETE", f"/faults/{made}", status=404)
    await wire.control("DELETE", "/faults")
    await wire.control("DELETE", "/requests")
    assert wire.sim.requests.count() == 0
    await wire.control("PATCH", "/", {"latency": 0.01})
    assert wire.sim.latency == 0.01
    await wire.control("POST", "/clock", {"advance": 1000})
    assert wire.sim.world.now() >= before + 1000


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/faults", {"target": "palette", "kind": "magic"}, 400),
        ("POST", "/faults", {"colour": "red"}, 400),
        ("POST", "/clusters", {"instance": "nowhere"}, 404),
        ("POST", "/clusters", {"instance": "alpha", "size": 3}, 400),
        ("PATCH", "/clusters/none", {"state": "x"}, 404),
        ("PATCH", "/instances/alpha", {"key_permission": "root"}, 400),
        ("PATCH", "/instances/alpha", {"behaviour": {"listing_lie": "always"}}, 400),
        ("PATCH", "/instances/alpha", {"behaviour": {"admin_permission": "yes"}}, 400),
        ("PATCH", "/instances/alpha", {"behaviour": {"mood": "bad"}}, 400),
        ("PATCH", "/", {"latency": -1}, 400),
        ("POST", "/projects", [], 400),
        ("GET", "/nonsense", None, 404),
        ("DELETE", "/requests/count", None, 405),
    ],
)
async def test_the_control_api_refuses_what_cannot_be_done(
    wire: Wire, method: str, path: str, body: Any, status: int
) -> None:
    assert "error" in await wire.control(method, path, body, status)


async def test_no_answer_of_the_control_api_tells_a_secret(wire: Wire) -> None:
    answers = [
        await wire.control("GET", path) for path in ("/", f"/clusters/{wire.cluster.uid}", "/faults", "/requests")
    ]

    assert not [secret for secret in wire.sim.secrets() if secret in json.dumps(answers)]


# The configuration for other commands.


async def test_the_written_configuration_is_complete_and_keeps_its_secrets(wire: Wire, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    wire.sim.write_config(folder, seal_keys_line="k1:abc", redis_url="redis://127.0.0.1:1/0")
    config = tomllib.loads((folder / "config.toml").read_text())
    document = json.loads((folder / "simulator.json").read_text())
    alpha = config["instances"]["alpha"]

    assert set(config["instances"]) == {"alpha", "bravo"}
    assert alpha["url"] == wire.alpha.url
    assert alpha["api_key_name"] == wire.alpha.api_key_name
    assert (folder / "alpha.api-key").read_text().strip() == wire.alpha.api_key
    assert alpha["api_key_file"] == str(folder / "alpha.api-key")
    assert (folder / "alpha.ca.pem").read_text() == wire.alpha.ca_pem
    assert alpha["ca_file"] == str(folder / "alpha.ca.pem")
    assert alpha["auth"] == {"mode": "service-account", "rules": [{"tag": "auth:oidc", "mode": "oidc"}]}
    assert config["redis"] == {"url": "redis://127.0.0.1:1/0"}
    assert config["seal"] == {"keys_file": str(folder / "seal.keys")}
    assert (folder / "seal.keys").read_text() == "k1:abc\n"
    for name in ("alpha.api-key", "bravo.api-key", "seal.keys"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert document["control_url"] == wire.sim.control_url
    assert [i["name"] for i in document["instances"]] == ["alpha", "bravo"]
    assert {c["uid"] for i in document["instances"] for c in i["clusters"]} == set(wire.sim.world.clusters)
    public = (folder / "simulator.json").read_text() + (folder / "config.toml").read_text()
    assert not [secret for secret in wire.sim.secrets() if secret in public]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux serves all of 127.0.0.0/8 without being set up for it")
async def test_it_serves_another_address_under_another_name(tmp_path: Path) -> None:
    options = SimulatorOptions(instances=1, clusters=1, listen="127.0.0.2", host="simulator")
    async with Simulator(options) as sim:
        sim.write_config(tmp_path, seal_keys_line="k " + "A" * 43, redis_url="redis://elsewhere:6379/0")
        alpha = sim.world.instances["alpha"]
        cluster = next(iter(alpha.clusters.values()))
        for url, authority in ((alpha.url, alpha.ca_pem), (cluster.url, cluster.ca_pem)):
            host, _, port = url.removeprefix("https://").partition(":")
            assert host == "simulator"
            trust = ssl.create_default_context(cadata=authority)
            _, writer = await asyncio.open_connection("127.0.0.2", int(port), ssl=trust, server_hostname=host)
            writer.close()
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection("127.0.0.1", int(port))
        assert sim.control_url.startswith("http://127.0.0.1:")

    written = (tmp_path / "config.toml").read_text()
    assert 'url = "https://simulator:' in written
    assert 'url = "redis://elsewhere:6379/0"' in written


async def test_a_simulator_that_does_not_run_has_no_addresses() -> None:
    sim = Simulator(SimulatorOptions(clusters=1))
    with pytest.raises(RuntimeError):
        _ = sim.control_url
    with pytest.raises(RuntimeError):
        sim.latency = 1
    async with sim:
        assert sim.control_url.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError):
        _ = sim.control_url
