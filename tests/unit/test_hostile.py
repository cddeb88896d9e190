"""Whatever others send becomes a bounded value of ours, or an error of ours; nothing else."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import example, given

from builders import NOW
from hostile import BODIES, CONTROLS, KUBECONFIGS, hostile_documents, hostile_kubeconfigs, hostile_objects, hostile_rows
from palette_sync.core import memory_codec
from palette_sync.core import snapshot_codec as codec
from palette_sync.core.documents import DocumentError
from palette_sync.core.fold import AccessFailed, AccessGained, Presentation, fold_record
from palette_sync.core.model import LARGEST_CA, ClusterKey, OidcAuth, Secret, Server
from palette_sync.core.network import NetworkPolicy, Standing
from palette_sync.core.reasons import Reason
from palette_sync.http import Reply
from palette_sync.kube import objects
from palette_sync.kube.errors import KubeError, error_of
from palette_sync.kube.kubeconfig import LONGEST_URL, ClientCertificate, KubeconfigError, parse, parse_server_only
from palette_sync.kube.transport import tls_context
from palette_sync.palette.errors import Malformed, PaletteError
from palette_sync.palette.errors import error_of as palette_error_of
from palette_sync.palette.rows import (
    LONGEST_NAME,
    LONGEST_TAG,
    LONGEST_WORD,
    MOST_TAG_CHARACTERS,
    MOST_TAGS,
    read_cluster,
    read_oidc,
    read_page,
    read_project,
    read_user_info,
)
from strategies import full_record

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_RECORD = 64 * 1024  # bytes that readers accept


def texts_in(value: Any) -> list[str]:
    """Every text in a JSON document."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts_in(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts_in(one)]
    return [value] if isinstance(value, str) else []


def attempt(refusal: type[Exception], read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` returns, or the refusal that it raises. Any other error ends the test."""
    try:
        return read(*arguments)
    except refusal as error:
        refused = error
    assert len(str(refused)) < 500
    assert str(refused).isprintable()
    return refused


@given(hostile_rows())
@example({"metadata": {"uid": "u", "name": CONTROLS}})
def test_a_row_becomes_a_cluster_of_bounded_printable_texts_or_is_malformed(row: Any) -> None:
    cluster = attempt(Malformed, read_cluster, row)
    if isinstance(cluster, Malformed):
        return
    words = (cluster.state, cluster.health, cluster.cloud_type, *asdict(cluster.location).values())
    assert all(len(word) <= LONGEST_WORD for word in words)
    assert len(cluster.name) <= LONGEST_NAME
    assert len(cluster.tags) <= MOST_TAGS
    assert sum(map(len, cluster.tags)) <= MOST_TAG_CHARACTERS
    assert all(len(tag) <= LONGEST_TAG for tag in cluster.tags)
    project = (cluster.project.uid, cluster.project.name) if cluster.project else ()
    assert all(text.isprintable() for text in (*words, cluster.name, *cluster.tags, *project))


@given(hostile_rows())
def test_a_published_record_of_any_row_is_smaller_than_readers_accept(row: Any) -> None:
    cluster = attempt(Malformed, read_cluster, row)
    if isinstance(cluster, Malformed):
        return
    for verdict in (
        AccessGained(
            Server("https://" + "h" * (LONGEST_URL - 8), base64.b64encode(b"C" * LARGEST_CA).decode(), "s" * 253),
            OidcAuth("p" * 64, "https://" + "i" * 504, "c" * 256),
            "v" * 64,
            desired="x",
        ),
        AccessFailed(Reason.INVALID, CONTROLS * 10_000),
    ):
        record = fold_record(
            cluster,
            key=ClusterKey("alpha", cluster.uid),
            name="n" * LONGEST_NAME,
            previous=None,
            verdict=verdict,
            credential_alive=True,
            presentation=Presentation("t" * 200, "https://" + "c" * 2040),
            now=NOW,
        )
        encoded = codec.encode_record(record)
        assert len(encoded) <= LARGEST_RECORD
        assert all(text.isprintable() for text in texts_in(orjson.loads(encoded)))


@pytest.mark.parametrize("read", [read_page, read_project, read_oidc, read_user_info])
@given(document=hostile_rows())
def test_no_document_of_palette_ends_in_another_error(read: Any, document: Any) -> None:
    attempt(Malformed, read, document)


@pytest.mark.parametrize(
    "read",
    [objects.namespace_of, objects.service_account_of, objects.secret_of, objects.role_of, objects.binding_of],
)
@given(document=hostile_objects())
def test_an_object_of_an_api_server_becomes_a_value_or_is_malformed(read: Any, document: Any) -> None:
    if not isinstance(document, dict):
        return  # `KubeApi.call` hands on objects only
    found = attempt(KubeError, read, document)
    if isinstance(found, KubeError):
        assert found.reason is Reason.MALFORMED
        return
    assert len(found.meta.uid) <= 64
    assert len(getattr(found, "name", "")) <= 253


@given(hostile_kubeconfigs())
@example(KUBECONFIGS["a CA that is a list"])
def test_a_kubeconfig_leads_to_a_plain_https_server_or_is_refused(text: str) -> None:
    for read in (parse, parse_server_only):
        found = attempt(KubeconfigError, read, Secret(text))
        if isinstance(found, KubeconfigError):
            continue
        server = found if isinstance(found, Server) else found.server
        assert server.url.startswith("https://")
        assert server.url.isprintable()
        assert len(server.url) <= LONGEST_URL
        assert server.ca_data is not None or "certificate-authority-data" not in _cluster_of(text)
        assert len(server.ca_data or "") <= LARGEST_CA * 2


def _cluster_of(text: str) -> dict[str, Any]:
    """The keys of the cluster that have a value, as YAML's own loader reads them."""
    import yaml

    loaded = yaml.load(text, Loader=yaml.CSafeLoader)
    return {key: value for key, value in loaded["clusters"][0]["cluster"].items() if value not in (None, "")}


def use(text: str) -> Server:
    """Everything that happens to a kubeconfig before a connection is made."""
    admin = parse(Secret(text))
    certificate = admin.credential if isinstance(admin.credential, ClientCertificate) else None
    tls_context(admin.server, certificate)
    return admin.server


@pytest.mark.parametrize("name", sorted(KUBECONFIGS.keys() - {"metadata service"}))
def test_no_kubeconfig_of_the_corpus_is_used(name: str) -> None:
    assert isinstance(attempt(KubeconfigError, use, KUBECONFIGS[name]), KubeconfigError)


def test_the_one_that_is_well_formed_names_an_address_that_is_refused() -> None:
    address = use(KUBECONFIGS["metadata service"]).url.removeprefix("https://")

    assert NetworkPolicy().judge(address) is Standing.REFUSED


@pytest.mark.parametrize("name", sorted(BODIES))
@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 409, 422, 429, 500])
def test_an_error_of_any_body_is_one_short_line(name: str, status: int) -> None:
    body = BODIES[name].encode()
    texts = [str(error_of("GET x", Reply(status, {}, body)))]
    texts.append(str(palette_error_of("GET x", status, body, redact=str)))

    assert all(len(text) <= 500 and text.isprintable() for text in texts)
    assert issubclass(type(palette_error_of("GET x", status, body, redact=str)), PaletteError)


@given(hostile_documents(full_record()))
def test_a_record_in_redis_is_decoded_or_refused(raw: bytes) -> None:
    record = attempt(DocumentError, codec.decode_record, raw)

    if not isinstance(record, DocumentError):
        assert codec.decode_record(codec.encode_record(record)) == record


TIME = "2026-03-01T12:00:00Z"
MEMORY = {
    "failures": 1,
    "verified_at": TIME,
    "retry_at": TIME,
    "generation": "s",
    "desired": "d",
    "retired": [{"name": "s", "uid": "u", "delete_at": TIME}],
}
CREDENTIAL = {"issued_at": TIME, "renew_at": TIME, "expires_at": TIME, "sealed": "e30..AA.BB.CC"}
ISSUER = {
    "issuer": "https://i",
    "authorization_endpoint": "",
    "token_endpoint": "",
    "jwks_uri": "",
    "key_ids": ["k"],
    "algorithms": ["RS256"],
    "fetched_at": TIME,
}


@pytest.mark.parametrize(
    ("decode", "document"),
    [
        pytest.param(memory_codec.decode_memory, MEMORY, id="memory"),
        pytest.param(codec.decode_credential, CREDENTIAL, id="credential"),
        pytest.param(memory_codec.decode_issuer, ISSUER, id="issuer"),
        pytest.param(memory_codec.decode_scope, {"name": "Shop", "listed_at": TIME}, id="scope"),
    ],
)
def test_each_kind_of_document_in_redis_is_decoded_or_refused(decode: Any, document: dict[str, Any]) -> None:
    decode(orjson.dumps(document))

    @given(hostile_documents(document))
    def any_bytes(raw: bytes) -> None:
        attempt(DocumentError, decode, raw)

    any_bytes()
