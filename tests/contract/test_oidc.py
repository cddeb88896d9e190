"""An issuer is taken at its word only after its document and keys were checked."""

from __future__ import annotations

import gzip
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from contract.palette_fake import Fake, Seen, raw_server, says, tls
from loopback import LOOPBACK
from palette_sync import oidc
from palette_sync.core.model import IssuerMetadata
from palette_sync.core.network import NetworkPolicy
from palette_sync.http import USER_AGENT
from palette_sync.oidc import IssuerError, fetch_issuer
from palette_sync.simulator import Simulator, SimulatorOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HERE: dict[str, Any] = {"network": LOOPBACK, "keys_allowed": lambda _url: True}
KEY = {"kid": "k1", "kty": "RSA", "alg": "RS256", "use": "sig", "n": "x", "e": "AQAB"}


class Issuer:
    """An issuer whose documents and headers a test may change."""

    def __init__(self, path: str = "/tenant/1") -> None:
        self.path = path
        self.fake = Fake(self.answer)
        self.document: dict[str, Any] = {}
        self.keys: Any = {"keys": [KEY]}
        self.headers: dict[str, str] = {}
        self.keys_headers: dict[str, str] | None = None
        self.override: Callable[[Seen], web.StreamResponse | None] = lambda _: None

    @property
    def url(self) -> str:
        return self.fake.url + self.path

    def answer(self, seen: Seen) -> web.StreamResponse:
        special = self.override(seen)
        if special is not None:
            return special
        if seen.path == self.path.rstrip("/") + "/.well-known/openid-configuration":
            base = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/auth",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.fake.url}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "none"],
            }
            document = {k: v for k, v in {**base, **self.document}.items() if v is not ...}
            return web.json_response(document, headers=self.headers)
        if seen.path == "/keys":
            headers = self.headers if self.keys_headers is None else self.keys_headers
            return web.json_response(self.keys, headers=headers)
        return web.Response(status=404)

    async def fetch(self, issuer: str | None = None, **options: Any) -> IssuerMetadata:
        settings = {"ca_pem": tls().ca_pem, "now": NOW, "refresh_interval": HOUR, "timeout": 5.0, **HERE, **options}
        return await fetch_issuer(issuer or self.url, **settings)


@asynccontextmanager
async def serving(path: str = "/tenant/1") -> AsyncIterator[Issuer]:
    one = Issuer(path)
    async with one.fake:
        yield one


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serving() as one:
        yield one


async def test_document_and_keys_become_metadata(issuer: Issuer) -> None:
    metadata = await issuer.fetch()

    assert metadata == IssuerMetadata(
        issuer=issuer.url,
        authorization_endpoint=f"{issuer.url}/auth",
        token_endpoint=f"{issuer.url}/token",
        jwks_uri=f"{issuer.fake.url}/keys",
        key_ids=("k1",),
        algorithms=("RS256",),
        fetched_at=NOW,
        valid_until=NOW + HOUR,
    )
    assert [seen.path for seen in issuer.fake.seen] == ["/tenant/1/.well-known/openid-configuration", "/keys"]
    assert all("ApiKey" not in seen.headers and "Authorization" not in seen.headers for seen in issuer.fake.seen)


async def test_a_terminating_slash_is_cut_for_the_path_but_part_of_the_name() -> None:
    async with serving("/tenant/1/") as issuer:
        assert (await issuer.fetch()).issuer.endswith("/tenant/1/")
        with pytest.raises(oidc.IssuerMismatch):
            await issuer.fetch(issuer.url.rstrip("/"))


async def test_an_issuer_without_a_path_is_asked_at_the_root() -> None:
    async with serving("") as issuer:
        assert (await issuer.fetch()).issuer == issuer.fake.url


@pytest.mark.parametrize("claimed", ["https://other.example", "", None, 7, ...])
async def test_a_document_of_another_issuer_is_refused(issuer: Issuer, claimed: object) -> None:
    issuer.document["issuer"] = claimed

    with pytest.raises(oidc.IssuerMismatch):
        await issuer.fetch()

    assert len(issuer.fake.seen) == 1


async def test_issuers_are_compared_byte_for_byte(issuer: Issuer) -> None:
    issuer.document["issuer"] = issuer.url.replace("tenant", "Tenant")

    with pytest.raises(oidc.IssuerMismatch):
        await issuer.fetch()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "issuer.example",
        "https://",
        "https://user:hunter2@issuer.example",
        "https://issuer.example/?hunter2",
        "https://issuer.example/#hunter2",
        "https://[::1",
        "",
        "file:///etc/passwd",
    ],
)
async def test_an_issuer_that_is_no_plain_https_url_is_not_asked_nor_repeated(url: str) -> None:
    with pytest.raises(oidc.IssuerRefused) as caught:
        await fetch_issuer(url, ca_pem=None, now=NOW, refresh_interval=HOUR, **HERE)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("ca", ["", "nonsense", "ä"])
async def test_a_ca_that_is_none_is_refused(ca: str) -> None:
    with pytest.raises(oidc.IssuerRefused, match="CA"):
        await fetch_issuer("https://issuer.example", ca_pem=ca, now=NOW, refresh_interval=HOUR, **HERE)


async def test_an_issuer_that_the_systems_trust_does_not_know_is_unreachable(issuer: Issuer) -> None:
    with pytest.raises(oidc.IssuerUnreachable, match="certificate"):
        await issuer.fetch(ca_pem=None)


async def test_an_issuer_that_nobody_serves_is_unreachable() -> None:
    async with serving() as issuer:
        pass
    with pytest.raises(oidc.IssuerUnreachable):
        await issuer.fetch()


async def test_an_issuer_that_hangs_is_unreachable() -> None:
    async def hang(reader: Any, writer: Any) -> None:
        await reader.read()

    async with raw_server(hang) as url:
        with pytest.raises(oidc.IssuerUnreachable, match=r"0\.2 s"):
            await fetch_issuer(
                url.replace("http:", "https:"), ca_pem=tls().ca_pem, now=NOW, refresh_interval=HOUR, timeout=0.2, **HERE
            )


async def test_a_server_without_tls_is_unreachable() -> None:
    async with raw_server(says(b"HTTP/1.1 200 OK\r\n\r\n{}")) as url:
        with pytest.raises(oidc.IssuerUnreachable):
            await fetch_issuer(
                url.replace("http:", "https:"), ca_pem=tls().ca_pem, now=NOW, refresh_interval=HOUR, timeout=0.5, **HERE
            )


@pytest.mark.parametrize("status", [204, 301, 307, 401, 404, 500])
@pytest.mark.parametrize("which", ["openid-configuration", "keys"])
async def test_anything_but_200_is_no_document_and_no_redirect_is_followed(
    issuer: Issuer, status: int, which: str
) -> None:
    moved = {"Location": issuer.fake.url + "/keys"}
    issuer.override = lambda seen: (
        web.Response(status=status, headers=moved, text=None) if seen.path.endswith(which) else None
    )

    with pytest.raises(oidc.IssuerUnanswered, match=str(status)) as caught:
        await issuer.fetch()

    assert ("redirect" in str(caught.value)) is (300 <= status < 400)
    assert len(issuer.fake.seen) == (1 if which == "openid-configuration" else 2)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>secret</html>", b'{"issuer":'])
@pytest.mark.parametrize("which", ["openid-configuration", "keys"])
async def test_a_body_that_is_no_json_object_is_malformed(issuer: Issuer, body: bytes, which: str) -> None:
    issuer.override = lambda seen: web.Response(body=body) if seen.path.endswith(which) else None

    with pytest.raises(oidc.IssuerMalformed) as caught:
        await issuer.fetch()

    assert "secret" not in str(caught.value)


async def test_a_body_that_is_too_large_is_refused_also_when_compressed(issuer: Issuer) -> None:
    issuer.override = lambda _: web.Response(body=b" " * (256 * 1024 + 1))
    with pytest.raises(oidc.IssuerUnreachable, match="larger"):
        await issuer.fetch()

    issuer.override = lambda _: web.Response(
        body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}
    )
    with pytest.raises(oidc.IssuerUnreachable, match="larger"):
        await issuer.fetch()


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/keys", "", None, ..., 5, "/keys", "https://", "https://[", "https://u@h/"]
)
async def test_keys_are_fetched_over_https_only(issuer: Issuer, uri: object) -> None:
    issuer.document["jwks_uri"] = uri

    with pytest.raises(oidc.IssuerMalformed, match="jwks_uri"):
        await issuer.fetch()

    assert len(issuer.fake.seen) == 1


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
async def test_other_endpoints_may_be_missing_but_not_http(issuer: Issuer, name: str) -> None:
    issuer.document[name] = ...
    assert getattr(await issuer.fetch(), name) == ""

    issuer.document[name] = "http://plain.example"
    with pytest.raises(oidc.IssuerMalformed, match=name):
        await issuer.fetch()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"keys": None},
        {"keys": []},
        {"keys": {}},
        {"keys": ["x"]},
        {"keys": [{"kty": "RSA"}, {"kty": "EC"}]},
        {"keys": [{}]},
        {"keys": [{"kid": "", "kty": "RSA"}]},
        {"keys": [{"kid": 1, "kty": "RSA"}]},
        {"keys": [{"kid": "k"}]},
        {"keys": [{"kid": "k", "kty": ""}]},
        {"keys": [{**KEY, "use": "enc"}]},
        {"keys": [{"kid": "k", "kty": "oct"}]},
    ],
)
async def test_without_a_public_signing_key_there_is_no_issuer(issuer: Issuer, keys: object) -> None:
    issuer.keys = keys

    with pytest.raises(oidc.IssuerMalformed, match="signing key"):
        await issuer.fetch()


async def test_a_single_key_needs_no_id(issuer: Issuer) -> None:
    issuer.keys = {"keys": [{key: value for key, value in KEY.items() if key != "kid"}]}
    issuer.document["id_token_signing_alg_values_supported"] = ...

    found = await issuer.fetch()

    assert (found.key_ids, found.algorithms) == ((), ("RS256",))


async def test_keys_that_cannot_sign_are_passed_over(issuer: Issuer) -> None:
    issuer.keys = {"keys": ["x", {**KEY, "kid": "z"}, KEY, {"kid": "e", "kty": "RSA", "use": "enc"}]}

    assert (await issuer.fetch()).key_ids == ("k1", "z")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [(["RS256", "ES256"], ("ES256", "RS256")), (["RS256", "none"], ("RS256",)), (..., ("RS256",))],
)
async def test_algorithms_come_from_the_document_else_from_the_keys(
    issuer: Issuer, listed: object, expected: tuple[str, ...]
) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = listed

    assert (await issuer.fetch()).algorithms == expected


@pytest.mark.parametrize("listed", [["none"], [], "RS256", [1]])
async def test_unsigned_or_unreadable_algorithms_are_malformed(issuer: Issuer, listed: object) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = listed

    with pytest.raises(oidc.IssuerMalformed):
        await issuer.fetch()


def date(offset: float) -> str:
    return format_datetime(NOW + timedelta(seconds=offset), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 3600),
        ({"Cache-Control": "public, max-age=900"}, 900),
        ({"Cache-Control": 'MAX-AGE="900"'}, 900),
        ({"Cache-Control": "max-age=900", "Age": "300"}, 600),
        ({"Cache-Control": "max-age=900", "Age": "nonsense"}, 900),
        ({"Cache-Control": "max-age=900", "Age": "9000"}, 60),
        ({"Cache-Control": "max-age=10"}, 60),
        ({"Cache-Control": "max-age=0"}, 60),
        ({"Cache-Control": "max-age=-1"}, 60),
        ({"Cache-Control": "max-age=soon"}, 60),
        ({"Cache-Control": "max-age=99999999999999999999"}, 3600),
        ({"Cache-Control": "max-age=" + "9" * 5000}, 3600),
        ({"Cache-Control": "no-store"}, 60),
        ({"Cache-Control": "no-cache, max-age=900"}, 60),
        ({"Cache-Control": "public,,"}, 3600),
        ({"Expires": date(1200), "Date": date(0)}, 1200),
        ({"Expires": date(1200 + 7200), "Date": date(7200)}, 1200),
        ({"Expires": date(-1200), "Date": date(0)}, 60),
        ({"Expires": "0"}, 60),
        ({"Expires": date(1200), "Cache-Control": "max-age=300", "Date": date(0)}, 300),
        ({"Expires": date(90_000), "Date": date(0)}, 3600),
        ({"Expires": "Fri, 01 May 2026 12:20:00 -0000", "Date": date(0)}, 1200),
    ],
)
async def test_cache_headers_bound_how_long_it_is_valid(issuer: Issuer, headers: dict[str, str], seconds: int) -> None:
    issuer.headers = headers

    assert (await issuer.fetch()).valid_until == NOW + timedelta(seconds=seconds)


async def test_the_shorter_lived_of_document_and_keys_decides(issuer: Issuer) -> None:
    issuer.headers, issuer.keys_headers = {"Cache-Control": "max-age=900"}, {"Cache-Control": "max-age=120"}
    assert (await issuer.fetch()).valid_until == NOW + timedelta(seconds=120)

    issuer.headers, issuer.keys_headers = {"Cache-Control": "max-age=120"}, {}
    assert (await issuer.fetch()).valid_until == NOW + timedelta(seconds=120)


async def test_even_a_tiny_refresh_interval_leaves_a_minute(issuer: Issuer) -> None:
    metadata = await issuer.fetch(refresh_interval=timedelta(seconds=1))

    assert metadata.valid_until == NOW + timedelta(seconds=60)


async def test_the_simulated_issuer_is_accepted_with_the_trust_that_palette_names() -> None:
    async with Simulator(SimulatorOptions(instances=1, projects=1, clusters=0)) as sim:
        instance = sim.world.instances["alpha"]
        metadata = await fetch_issuer(
            instance.issuer_url, ca_pem=instance.ca_pem, now=NOW, refresh_interval=HOUR, timeout=5, **HERE
        )

    assert metadata.issuer == instance.issuer_url
    assert metadata.valid_until == NOW + timedelta(seconds=900)
    assert metadata.algorithms == ("RS256",)


def test_every_error_is_an_issuer_error() -> None:
    kinds = (
        oidc.IssuerRefused,
        oidc.IssuerUnreachable,
        oidc.IssuerUnanswered,
        oidc.IssuerMismatch,
        oidc.IssuerMalformed,
    )

    assert all(issubclass(kind, IssuerError) for kind in kinds)


async def test_keys_elsewhere_are_not_fetched(issuer: Issuer) -> None:
    asked: list[str] = []
    issuer.document["jwks_uri"] = "https://169.254.169.254/latest/meta-data"

    with pytest.raises(IssuerError, match="jwks_uri"):
        await issuer.fetch(keys_allowed=lambda url: asked.append(url) or False)

    assert asked == ["https://169.254.169.254/latest/meta-data"]
    assert len(issuer.fake.seen) == 1


async def test_an_issuer_at_a_refused_address_is_not_connected_to(issuer: Issuer) -> None:
    with pytest.raises(oidc.IssuerUnreachable, match="allow"):
        await issuer.fetch(network=NetworkPolicy())

    assert issuer.fake.seen == []


async def test_requests_to_an_issuer_name_their_sender(issuer: Issuer) -> None:
    await issuer.fetch()

    assert {seen.headers["User-Agent"] for seen in issuer.fake.seen} == {USER_AGENT}


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([{**KEY, "kid": f"k{number}"} for number in range(65)], id="too many"),
        pytest.param([{**KEY, "kid": "k" * 257}], id="a long id"),
        pytest.param([{**KEY, "kid": "k\u202e"}], id="an id that moves the cursor"),
    ],
)
async def test_keys_of_unbounded_size_are_refused(issuer: Issuer, keys: list[Any]) -> None:
    issuer.keys = {"keys": keys}

    with pytest.raises(oidc.IssuerMalformed):
        await issuer.fetch()


@pytest.mark.parametrize("algorithm", ["R" * 33, "RS256\x1b[2J", 7])
async def test_an_algorithm_that_is_no_word_is_left_out(issuer: Issuer, algorithm: object) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = ...
    issuer.keys = {"keys": [KEY, {**KEY, "kid": "k2", "alg": algorithm}]}

    assert (await issuer.fetch()).algorithms == ("RS256",)


@pytest.mark.parametrize("listed", [["RS256"] * 33, ["R" * 33], ["RS256\n"]])
async def test_listed_algorithms_of_unbounded_size_are_refused(issuer: Issuer, listed: list[str]) -> None:
    issuer.document["id_token_signing_alg_values_supported"] = listed

    with pytest.raises(oidc.IssuerMalformed):
        await issuer.fetch()


@pytest.mark.parametrize("url", ["https://a.example/" + "x" * 2048, "https://a.example/\u202e"])
async def test_an_endpoint_of_unbounded_size_is_refused(issuer: Issuer, url: str) -> None:
    issuer.document["token_endpoint"] = url

    with pytest.raises(oidc.IssuerMalformed):
        await issuer.fetch()
