"""What an API server may answer to a request for a token or a version, and which trust a connection has."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from loopback import LOOPBACK
from palette_sync import kube
from palette_sync.core.model import ClusterKey, ClusterMemory, Secret, Server
from palette_sync.core.objects import Desired
from palette_sync.core.plan import TokenNeed
from palette_sync.core.policy import TokenPolicy
from palette_sync.core.rbac import READ_ONLY
from palette_sync.kube.errors import KubeError
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.transport import KubeApi, tls_context
from palette_sync.reconcile import access
from palette_sync.simulator import Simulator, SimulatorOptions
from palette_sync.simulator.faults import Fault
from palette_sync.simulator.kubeconfig_files import admin_kubeconfig

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DESIRED = Desired("tools", "sa", "token", "reader", "binding", READ_ONLY)
POLICY = TokenPolicy(validity=timedelta(hours=24), rotate_every=timedelta(days=30), overlap=timedelta(minutes=10))
OURS = {"app.kubernetes.io/managed-by": "palette-sync"}
HERE = kube.Requests(network=LOOPBACK)
FAR = "2026-03-02T12:00:00Z"
FROM_1970 = "canary." + base64.urlsafe_b64encode(b'{"iat":0}').decode() + ".x"


@dataclass
class Stage:
    sim: Simulator
    cluster: Any

    async def grant(self, desired: Desired = DESIRED) -> access.Granted:
        return await access.grant(
            kube.parse(Secret(admin_kubeconfig(self.cluster))),
            desired,
            need=TokenNeed(issue=True, reason="New"),
            memory=ClusterMemory(),
            key=ClusterKey("alpha", "c1"),
            now=NOW,
            token_policy=POLICY,
            timeout=60,
            requests=HERE,
        )

    def answer(self, path: str, document: object, status: int = 200) -> None:
        body = orjson.dumps(document).decode()
        self.sim.faults.add(Fault(target="kube", kind="status", status=status, body=body, path=path))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Simulator(SimulatorOptions(instances=1, projects=1, clusters=1)) as sim:
        yield Stage(sim, next(iter(sim.world.clusters.values())))


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"expirationTimestamp": FAR}, id="no token"),
        pytest.param({"token": "", "expirationTimestamp": FAR}, id="an empty token"),
        pytest.param({"token": ["a"], "expirationTimestamp": FAR}, id="a token that is a list"),
        pytest.param({"token": "canary\u202e", "expirationTimestamp": FAR}, id="a token that moves the cursor"),
        pytest.param({"token": "canary\nX-Other: 1", "expirationTimestamp": FAR}, id="a token of two lines"),
        pytest.param({"token": "canary " + "x", "expirationTimestamp": FAR}, id="a token of two words"),
        pytest.param({"token": "canary" * 20_000, "expirationTimestamp": FAR}, id="a token of 120 kB"),
        pytest.param({"token": "canary"}, id="no expiry"),
        pytest.param({"token": "canary", "expirationTimestamp": "soon"}, id="an expiry that is no time"),
        pytest.param({"token": "canary", "expirationTimestamp": "0001-01-01T00:00:00+14:00"}, id="before all time"),
        pytest.param({"token": "canary", "expirationTimestamp": "2026-03-01T12:00:00Z"}, id="no life at all"),
        pytest.param({"token": FROM_1970, "expirationTimestamp": "9999-12-31T23:59:59Z"}, id="past the calendar"),
        pytest.param({"token": "canary", "expirationTimestamp": "9999-01-01T00:00:00Z"}, id="past what is published"),
        pytest.param([], id="no object"),
    ],
)
async def test_a_token_request_that_grants_nothing_usable_is_malformed(stage: Stage, status: object) -> None:
    stage.answer("/token$", {"status": status}, 201)

    with pytest.raises(KubeError, check=lambda error: error.reason == "Malformed") as caught:
        await stage.grant()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("token", ["opaque", "a.b.c", "a.W10.c", "a.eyJpYXQiOiAieCJ9.c"])
async def test_a_token_without_an_issue_time_counts_from_now(stage: Stage, token: str) -> None:
    stage.answer("/token$", {"status": {"token": token, "expirationTimestamp": FAR}}, 201)
    stage.answer("selfsubjectaccessreviews", {"status": {"allowed": True}}, 201)
    stage.answer("/version", {"gitVersion": "v1.33.4"})

    credential = (await stage.grant()).credential

    assert credential is not None
    assert (credential.issued_at, credential.expires_at) == (NOW, NOW + timedelta(hours=24))
    assert repr(credential).count("***") == 1


async def test_a_secret_that_nobody_fills_is_given_up_on(stage: Stage) -> None:
    stage.cluster.kube.fill_delay = 3600

    with pytest.raises(KubeError, match="token", check=lambda error: error.reason == "TokenNotFilled"):
        await stage.grant(replace(DESIRED, token_source="secret"))


async def test_a_secret_filled_with_something_else_is_malformed(stage: Stage) -> None:
    store = stage.cluster.kube
    ours = {"app.kubernetes.io/managed-by": "palette-sync", "palette-sync/generation": "1"}
    owner = {"kubernetes.io/service-account.name": "sa"}
    store.put("Namespace", None, "tools", {})
    store.put("ServiceAccount", "tools", "sa", {"metadata": {"labels": ours}})
    secret = {"type": "kubernetes.io/service-account-token", "data": {"token": "canary!"}}
    store.put("Secret", "tools", "token", {"metadata": {"labels": ours, "annotations": owner}, **secret})

    with pytest.raises(KubeError, match="base64", check=lambda error: error.reason == "Malformed") as caught:
        await stage.grant(replace(DESIRED, token_source="secret"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "beginning"),
    [("v1.33.4\x1b[2J\u202e", "v1.33.4 [2J"), ("v" * 500, "vvvv")],
    ids=["without controls", "cut"],
)
async def test_the_version_is_a_short_line(stage: Stage, version: str, beginning: str) -> None:
    stage.answer("/version", {"major": "1", "minor": "33", "gitVersion": version})
    server = kube.parse_server_only(Secret(admin_kubeconfig(stage.cluster)))

    found = await kube.probe_version(server, timeout=60, requests=HERE)

    assert found is not None
    assert found.startswith(beginning)
    assert found.isprintable()
    assert len(found) <= 64


def test_clusters_without_a_ca_share_one_context_with_the_systems_trust() -> None:
    one = tls_context(Server("https://a"), None)
    other = tls_context(Server("https://b"), BearerToken(Secret("x")))

    assert one is other
    assert one.verify_mode is ssl.CERT_REQUIRED
    assert one.check_hostname


def test_a_client_certificate_never_gets_into_the_shared_context(stage: Stage) -> None:
    admin = kube.parse(Secret(admin_kubeconfig(stage.cluster)))

    own = tls_context(Server("https://a"), admin.credential)

    assert own is not tls_context(Server("https://a"), None)
    assert own.verify_mode is ssl.CERT_REQUIRED


def test_a_context_verifies_with_the_clusters_ca_alone(stage: Stage) -> None:
    context = tls_context(kube.parse_server_only(Secret(admin_kubeconfig(stage.cluster))), None)

    assert len(context.get_ca_certs()) == 1
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_the_environment_is_ignored_about_requests_to_clusters(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password canary\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    server = kube.parse_server_only(Secret(admin_kubeconfig(stage.cluster)))

    assert await kube.probe_version(server, timeout=60, requests=HERE) == stage.cluster.version
    assert {entry.credential for entry in stage.sim.requests.entries} == {"anonymous"}


async def test_a_token_that_an_api_server_echoes_is_in_no_error(stage: Stage) -> None:
    granted = await stage.grant()
    assert granted.credential is not None
    token = granted.credential.token
    words = {"reason": token.reveal(), "message": f"no user for Bearer {token.reveal()}"}
    stage.answer("/version/$", {"kind": "Status", **words}, 403)

    async with KubeApi(granted.server, BearerToken(token), timeout=60, requests=HERE) as api:
        with pytest.raises(KubeError) as caught:
            await api.call("GET /version", api.version.get_code)

    assert str(caught.value) == "GET /version: HTTP 403 (***: no user for Bearer ***)"


@pytest.mark.parametrize(("seconds", "refused"), [(2, True), (29, True), (30, False)])
async def test_a_token_that_would_be_renewed_all_the_time_is_refused(
    stage: Stage, seconds: int, *, refused: bool
) -> None:
    expires = (NOW + timedelta(seconds=seconds)).isoformat()
    stage.answer("/token$", {"status": {"token": "canary", "expirationTimestamp": expires}}, 201)
    stage.answer("selfsubjectaccessreviews", {"status": {"allowed": True}}, 201)

    if refused:
        with pytest.raises(KubeError, match="30 s", check=lambda error: error.reason == "TokensTooShort"):
            await stage.grant()
    else:
        assert (await stage.grant()).credential is not None


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param({"name": "s" * 254, "uid": "u", "resourceVersion": "1"}, id="a long name"),
        pytest.param({"name": "a/b", "uid": "u", "resourceVersion": "1"}, id="a name that is a path"),
        pytest.param({"name": ["s"], "uid": "u", "resourceVersion": "1"}, id="a name that is a list"),
        pytest.param({"name": "s", "uid": "u" * 65, "resourceVersion": "1"}, id="a long uid"),
        pytest.param({"name": "s", "uid": "u", "resourceVersion": "1" * 129}, id="a long version"),
    ],
)
async def test_what_is_remembered_of_a_secret_has_a_length(stage: Stage, secret: dict[str, Any]) -> None:
    stage.answer("/secrets$", {"items": [{"metadata": secret}]})
    stage.answer("/namespaces/tools$", {"metadata": {"uid": "n", "resourceVersion": "1", "labels": OURS}})

    with pytest.raises(KubeError, check=lambda error: error.reason == "Malformed"):
        await stage.grant()


@pytest.mark.parametrize("many", [[{}], [[]], ["", ""]], ids=["objects", "lists", "texts"])
async def test_an_answer_of_more_values_than_any_object_has_is_not_decoded(stage: Stage, many: list[Any]) -> None:
    stage.answer("/namespaces/tools$", {"metadata": {"uid": "n", "resourceVersion": "1"}, "x": many * 20_000})

    with pytest.raises(KubeError, match="values", check=lambda error: error.reason == "Malformed"):
        await stage.grant()


async def test_a_list_of_thousands_of_secrets_is_refused(stage: Stage) -> None:
    items = [{"metadata": {"name": f"s{n}", "uid": "u", "resourceVersion": "1"}} for n in range(201)]
    stage.answer("/secrets$", {"items": items})
    stage.answer("/namespaces/tools$", {"metadata": {"uid": "n", "resourceVersion": "1", "labels": OURS}})

    with pytest.raises(KubeError, match="more than 200", check=lambda error: error.reason == "Malformed"):
        await stage.grant()
