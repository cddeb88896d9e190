"""Tokens of the clouds over their real libraries, against small fakes of their token endpoints."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import structlog
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from contract.palette_fake import Fake, Seen, tls
from palette_sync.cloud import CloudTokens, CredentialsUnavailable, ServerRefused, missing_extra
from palette_sync.cloud.aws import AwsTokens
from palette_sync.cloud.azure import AzureTokens
from palette_sync.cloud.deadline import within
from palette_sync.core.cloud import Cloud, CloudCluster, Identity
from palette_sync.core.model import Secret, Server
from palette_sync.simulator import aws_tokens
from palette_sync.simulator.cloud_accounts import CloudAccounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

EKS = CloudCluster(Cloud.AWS, "shop")
EKS_SERVER = Server("https://0A.gr7.eu-central-1.eks.amazonaws.com")
AKS = CloudCluster(Cloud.AZURE)
AKS_SERVER = Server("https://shop-1.hcp.westeurope.azmk8s.io:443")
ROLE = "arn:aws:iam::123456789012:role/backstage"
SECRETS = ("canary", "k8s-aws-v1", "X-Amz-Signature")


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CloudAccounts:
    """Identities of the clouds, of which nothing is in the environment yet."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return CloudAccounts(lambda: datetime.now(UTC).timestamp(), Random(1))


@pytest.fixture
def found(accounts: CloudAccounts, monkeypatch: pytest.MonkeyPatch) -> CloudAccounts:
    """Identities of the clouds; AWS's is in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", accounts.aws.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", accounts.aws.secret)
    return accounts


def closing(answer: Callable[[Seen], web.StreamResponse]) -> Callable[[Seen], web.StreamResponse]:
    """End each connection with its answer: the libraries keep theirs open, beyond the end of a test."""

    def closed(seen: Seen) -> web.StreamResponse:
        response = answer(seen)
        response.force_close()
        return response

    return closed


def user_of(accounts: CloudAccounts, token: Secret, *, cluster: str = "shop", later: timedelta = timedelta()) -> Any:
    now = datetime.now(UTC) + later
    return aws_tokens.user_of(token.reveal(), accounts.aws_keys, cluster=cluster, now=now)


# ---- AWS -------------------------------------------------------------------------------------------------------------


async def test_a_token_of_eks_is_signed_for_one_cluster_and_a_quarter_of_an_hour(found: CloudAccounts) -> None:
    token = await CloudTokens().token(EKS, EKS_SERVER, Identity())

    assert user_of(found, token) == found.aws.user
    assert user_of(found, token, cluster="other") is None
    assert user_of(found, token, later=timedelta(minutes=14)) == found.aws.user
    assert user_of(found, token, later=timedelta(minutes=15, seconds=1)) is None


async def test_a_token_of_eks_is_a_presigned_request_to_the_sts_of_the_clusters_region(found: CloudAccounts) -> None:
    server = Server("https://0A.yl4.cn-north-1.eks.amazonaws.com.cn")

    token = (await CloudTokens().token(EKS, server, Identity())).reveal()

    encoded = token.removeprefix("k8s-aws-v1.")
    assert "=" not in encoded
    url = urlsplit(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc, url.path) == ("https", "sts.cn-north-1.amazonaws.com.cn", "/")
    assert (query["Action"], query["X-Amz-SignedHeaders"]) == ("GetCallerIdentity", "host;x-k8s-aws-id")
    assert int(query["X-Amz-Expires"]) <= 900


async def test_credentials_of_a_shared_profile_are_found(
    accounts: CloudAccounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = accounts.aws
    text = f"[retail]\naws_access_key_id = {key.access_key_id}\naws_secret_access_key = {key.secret}\n"
    (tmp_path / "credentials").write_text(text)
    monkeypatch.setenv("AWS_PROFILE", "retail")

    assert user_of(accounts, await CloudTokens().token(EKS, EKS_SERVER, Identity())) == key.user


async def test_without_credentials_there_is_no_token(accounts: CloudAccounts) -> None:
    with pytest.raises(CredentialsUnavailable, match="no AWS credentials were found"):
        await CloudTokens().token(EKS, EKS_SERVER, Identity())


async def test_a_profile_that_does_not_exist_is_an_error_by_name(
    accounts: CloudAccounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "retail")

    with pytest.raises(CredentialsUnavailable, match="ProfileNotFound"):
        await CloudTokens().token(EKS, EKS_SERVER, Identity())


class Sts:
    """AssumeRole, for a key that it knows and an external id. The role's key is then accepted by clusters."""

    def __init__(self, accounts: CloudAccounts) -> None:
        self.accounts = accounts
        self.asked: list[dict[str, str]] = []

    def answer(self, seen: Seen) -> web.StreamResponse:
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        self.asked.append(form)
        signed = f"Credential={self.accounts.aws.access_key_id}/" in seen.headers.get("Authorization", "")
        if not signed or form.get("Action") != "AssumeRole" or form.get("ExternalId") != "acme":
            error = "<Error><Code>AccessDenied</Code><Message>canary: no</Message></Error>"
            text = f"<ErrorResponse>{error}</ErrorResponse>"
            return web.Response(status=403, text=text, content_type="text/xml")
        key = self.accounts.new_aws_key("ASIA", form["RoleArn"], session_token="canary-session/token+1==")
        self.accounts.aws_keys[key.access_key_id] = key
        expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = (
            f'<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>{key.access_key_id}</AccessKeyId><SecretAccessKey>{key.secret}</SecretAccessKey>"
            f"<SessionToken>{key.session_token}</SessionToken><Expiration>{expires}</Expiration></Credentials>"
            f"<AssumedRoleUser><Arn>{form['RoleArn']}</Arn><AssumedRoleId>x:y</AssumedRoleId></AssumedRoleUser>"
            "</AssumeRoleResult></AssumeRoleResponse>"
        )
        return web.Response(text=text, content_type="text/xml")


@pytest.fixture
async def sts(
    found: CloudAccounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[Sts, CloudTokens]]:
    (tmp_path / "ca.pem").write_text(tls().ca_pem)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    one = Sts(found)
    async with Fake(closing(one.answer)) as fake:
        yield one, CloudTokens(aws=AwsTokens(endpoint_url=fake.url))


async def test_a_configured_role_is_assumed_once_and_signs_the_tokens(
    sts: tuple[Sts, CloudTokens], found: CloudAccounts
) -> None:
    service, tokens = sts
    identity = Identity(ROLE, "acme")

    made = [await tokens.token(EKS, EKS_SERVER, identity) for _ in range(2)]

    assert {user_of(found, one) for one in made} == {ROLE}
    assert [(one["RoleArn"], one["ExternalId"]) for one in service.asked] == [(ROLE, "acme")]


async def test_a_role_that_may_not_be_assumed_is_reported_without_the_words_of_aws(
    sts: tuple[Sts, CloudTokens],
) -> None:
    with pytest.raises(CredentialsUnavailable, match="refused to assume the role: AccessDenied") as caught:
        await sts[1].token(EKS, EKS_SERVER, Identity(ROLE, "wrong"))

    assert "canary" not in str(caught.value)


# ---- Azure -----------------------------------------------------------------------------------------------------------


class Entra:
    """The token endpoint of Entra ID, for one client."""

    def __init__(self, accounts: CloudAccounts) -> None:
        self.accounts = accounts
        self.scopes: list[str] = []

    def answer(self, seen: Seen) -> web.StreamResponse:
        if seen.path.endswith("/.well-known/openid-configuration"):
            host = f"https://{seen.headers['Host']}/tenant-1"
            return web.json_response(
                {
                    "issuer": f"{host}/v2.0",
                    "token_endpoint": f"{host}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{host}/oauth2/v2.0/authorize",
                }
            )
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        self.scopes.append(form.get("scope", ""))
        if form.get("client_secret") != "canary-azure-secret":
            return web.json_response({"error": "invalid_client", "error_description": "canary"}, status=401)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": 3600, "access_token": self.accounts.issue("azure")}
        )


@pytest.fixture
async def entra(
    accounts: CloudAccounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[Entra, CloudTokens]]:
    (tmp_path / "ca.pem").write_text(tls().ca_pem)
    values = {"AZURE_TENANT_ID": "tenant-1", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "canary-azure-secret"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    one = Entra(accounts)
    async with Fake(closing(one.answer)) as fake:
        azure = AzureTokens(
            authority=fake.url, disable_instance_discovery=True, connection_verify=str(tmp_path / "ca.pem")
        )
        yield one, CloudTokens(azure=azure, deadline=60)
        if azure._credential is not None:
            azure._credential.close()  # the library keeps its connection otherwise


async def test_a_token_of_entra_is_for_the_clusters_of_aks_only_and_is_kept_while_it_lives(
    entra: tuple[Entra, CloudTokens], accounts: CloudAccounts
) -> None:
    service, tokens = entra

    first, second = [await tokens.token(AKS, AKS_SERVER, Identity()) for _ in range(2)]

    assert first == second
    assert accounts.user_of("aks", "", first.reveal()) is not None
    assert [one.split()[0] for one in service.scopes] == ["6dae42f8-4368-4678-94ff-3960e28e3630/.default"]


async def test_wrong_credentials_of_azure_are_reported_without_its_words(
    entra: tuple[Entra, CloudTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "canary-wrong")

    with pytest.raises(CredentialsUnavailable, match="no Azure credentials can be used") as caught:
        await entra[1].token(AKS, AKS_SERVER, Identity())

    assert "canary" not in str(caught.value)


# ---- Google ----------------------------------------------------------------------------------------------------------

GKE = CloudCluster(Cloud.GOOGLE, "shop", "acme-prod", "europe-west3")
CA = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
GKE_SERVER = Server("https://34.1.2.3", CA)
NAMED = {"endpoint": "34.1.2.3", "masterAuth": {"clusterCaCertificate": CA}}
OF_ACME = Identity(projects=("acme-prod",))


class Google:
    """Google's token endpoint for a service account, and `clusters.get`."""

    def __init__(self, accounts: CloudAccounts) -> None:
        self.accounts = accounts
        self.cluster: Any = NAMED
        self.refuses = False
        self.tokens = 0

    def answer(self, seen: Seen) -> web.StreamResponse:
        if seen.path == "/token":
            self.tokens += 1
            if self.refuses:
                return web.json_response({"error": "invalid_grant", "error_description": "canary"}, status=400)
            return web.json_response({"access_token": self.accounts.issue("google"), "expires_in": 3600})
        assert seen.path == "/v1/projects/acme-prod/locations/europe-west3/clusters/shop"
        bearer = seen.headers["Authorization"].removeprefix("Bearer ")
        assert self.accounts.user_of("gke", "", bearer) is not None
        return web.json_response(self.cluster)


@pytest.fixture
async def google(
    accounts: CloudAccounts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[tuple[Google, CloudTokens]]:
    (tmp_path / "ca.pem").write_text(tls().ca_pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    one = Google(accounts)
    async with Fake(closing(one.answer)) as fake:
        account = {
            "type": "service_account",
            "project_id": "acme-prod",
            "client_email": "palette-sync@acme-prod.example",
            "private_key": key.decode(),
            "token_uri": f"{fake.url}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield one, CloudTokens(google_api=fake.url, google_ca_pem=tls().ca_pem, deadline=60)


async def test_a_token_of_google_is_for_a_server_that_google_names(
    google: tuple[Google, CloudTokens], accounts: CloudAccounts
) -> None:
    service, tokens = google

    made = [await tokens.token(GKE, GKE_SERVER, OF_ACME) for _ in range(2)]

    assert len(set(made)) == service.tokens == 1
    assert accounts.user_of("gke", "", made[0].reveal()) is not None


@pytest.mark.parametrize(
    ("cluster", "server"),
    [
        pytest.param(NAMED, Server("https://34.1.2.3:443", CA), id="the port of https"),
        pytest.param(
            {**NAMED, "privateClusterConfig": {"privateEndpoint": "10.0.0.2"}},
            Server("https://10.0.0.2", CA),
            id="a private endpoint",
        ),
        pytest.param(
            {"controlPlaneEndpointsConfig": {"dnsEndpointConfig": {"endpoint": "gke-1.europe-west3.gke.goog"}}},
            Server("https://gke-1.europe-west3.gke.goog"),
            id="the DNS endpoint, with the system's trust",
        ),
    ],
)
async def test_every_address_that_google_names_for_the_cluster_is_good(
    google: tuple[Google, CloudTokens], cluster: Any, server: Server
) -> None:
    google[0].cluster = cluster

    assert await google[1].token(GKE, server, OF_ACME)


@pytest.mark.parametrize(
    ("cluster", "server"),
    [
        pytest.param(NAMED, Server("https://34.1.2.4", CA), id="another address"),
        pytest.param(NAMED, Server("https://34.1.2.3:8443", CA), id="another port"),
        pytest.param(NAMED, Server("https://34.1.2.3", "QUJD"), id="another CA"),
        pytest.param(NAMED, Server("https://34.1.2.3"), id="the system's trust"),
        pytest.param(NAMED, Server("https://34.1.2.3", CA, "collect.example"), id="another name in TLS"),
        pytest.param({"endpoint": "34.1.2.3"}, GKE_SERVER, id="no CA in the answer"),
        pytest.param({"endpoint": "34.1.2.3", "masterAuth": {"clusterCaCertificate": 7}}, GKE_SERVER, id="no text"),
        pytest.param({}, Server("https://34.1.2.3"), id="nothing"),
    ],
)
async def test_any_other_server_is_refused(google: tuple[Google, CloudTokens], cluster: Any, server: Server) -> None:
    google[0].cluster = cluster

    with pytest.raises(ServerRefused):
        await google[1].token(GKE, server, OF_ACME)


async def test_a_cluster_of_another_project_is_refused_before_a_token_is_asked_for(
    google: tuple[Google, CloudTokens],
) -> None:
    with pytest.raises(ServerRefused, match=r"not one of cloud\.google\.projects"):
        await google[1].token(GKE, GKE_SERVER, Identity(projects=("acme-test",)))

    assert google[0].tokens == 0


async def test_what_is_no_cluster_confirms_nothing(google: tuple[Google, CloudTokens]) -> None:
    google[0].cluster = ["34.1.2.3"]

    with pytest.raises(CredentialsUnavailable, match="something else than a cluster"):
        await google[1].token(GKE, GKE_SERVER, OF_ACME)


async def test_a_refusal_of_google_is_reported_without_its_words(google: tuple[Google, CloudTokens]) -> None:
    google[0].refuses = True

    with pytest.raises(CredentialsUnavailable, match="RefreshError") as caught:
        await google[1].token(GKE, GKE_SERVER, OF_ACME)

    assert "canary" not in str(caught.value)


async def test_an_api_of_google_that_does_not_answer_confirms_nothing(google: tuple[Google, CloudTokens]) -> None:
    silent = CloudTokens(google_api="https://127.0.0.1:1", google_ca_pem=tls().ca_pem, deadline=60)

    with pytest.raises(CredentialsUnavailable, match="was not asked"):
        await silent.token(GKE, GKE_SERVER, OF_ACME)


# ---- For all of them -------------------------------------------------------------------------------------------------


async def test_no_token_is_asked_for_before_the_server_is_checked(found: CloudAccounts) -> None:
    class Untouched(AwsTokens):
        def token(self, *_: Any) -> Secret:
            raise AssertionError("a token was asked for")

    with pytest.raises(ServerRefused):
        await CloudTokens(aws=Untouched()).token(EKS, Server("https://collect.example"), Identity())


@pytest.fixture
def daemon_logging(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The daemon's own logging at its lowest level; what it lets through is captured."""
    from palette_sync.telemetry.logs import configure_logging

    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    configure_logging(level="debug", style="json")
    root.addHandler(caplog.handler)
    yield caplog
    root.handlers[:], root.level = before[:2]
    structlog.configure(**before[2])


async def test_nothing_secret_is_logged_at_any_level(
    sts: tuple[Sts, CloudTokens], daemon_logging: pytest.LogCaptureFixture
) -> None:
    await sts[1].token(EKS, EKS_SERVER, Identity(ROLE, "acme"))

    assert logging.getLogger("botocore").isEnabledFor(logging.WARNING)
    assert not any(secret in daemon_logging.text for secret in SECRETS)


async def test_a_library_that_hangs_ends_at_the_deadline_and_holds_up_no_shutdown() -> None:
    release = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            await within(0.01, release.wait, name="hanging")
        (thread,) = [one for one in threading.enumerate() if one.name == "hanging"]
        assert thread.daemon
    finally:
        release.set()
        await asyncio.to_thread(thread.join)


async def test_a_token_that_takes_too_long_is_reported_as_such() -> None:
    release = threading.Event()

    class Slow(AwsTokens):
        def token(self, *_: Any) -> Secret:
            release.wait()
            return Secret("late")

    try:
        with pytest.raises(CredentialsUnavailable, match=r"AWS gave no token within 0\.01 s"):
            await CloudTokens(aws=Slow(), deadline=0.01).token(EKS, EKS_SERVER, Identity())
    finally:
        release.set()


def test_the_extra_of_a_cloud_is_named_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [missing_extra(cloud) for cloud in Cloud] == [None, None, None]

    def find_spec(name: str) -> None:
        if "." in name:
            raise ModuleNotFoundError(name)

    monkeypatch.setattr("palette_sync.cloud.extras.find_spec", find_spec)
    assert [missing_extra(cloud) for cloud in Cloud] == ["aws", "google", "azure"]
