"""The documents of the Redis contract: canonical encoding, strict decoding, values never quoted."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders
import strategies
from builders import head_fields
from palette_sync.core import documents, memory_codec
from palette_sync.core import snapshot_codec as codec
from palette_sync.core.model import (
    ClusterMemory,
    ClusterRecord,
    Head,
    IssuerMetadata,
    Location,
    PaletteFacts,
    ScopeStatus,
    SealedCredential,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-5f1c"
TIME = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@given(strategies.records)
def test_a_record_survives_encoding(record: ClusterRecord) -> None:
    assert codec.decode_record(codec.encode_record(record)) == record


@given(strategies.credentials)
def test_a_credential_survives_encoding(credential: SealedCredential) -> None:
    assert codec.decode_credential(codec.encode_credential(credential)) == credential


@given(strategies.memories)
def test_a_memory_survives_encoding(memory: ClusterMemory) -> None:
    assert memory_codec.decode_memory(memory_codec.encode_memory(memory)) == memory


@given(strategies.scopes)
def test_a_scope_survives_encoding(scope: ScopeStatus) -> None:
    assert memory_codec.decode_scope(memory_codec.encode_scope(scope)) == scope


@given(strategies.issuers)
def test_an_issuer_survives_encoding(issuer: IssuerMetadata) -> None:
    assert memory_codec.decode_issuer(memory_codec.encode_issuer(issuer)) == issuer


@given(strategies.heads)
def test_a_head_survives_encoding(head: Head) -> None:
    assert codec.head_from_fields(head_fields(head)) == head


@given(strategies.records)
def test_encoding_is_canonical_json(record: ClusterRecord) -> None:
    raw = codec.encode_record(record)

    document = json.loads(raw)

    assert raw == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert _holds_no_null(document)


def _holds_no_null(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_holds_no_null(one) for one in value.values())
    if isinstance(value, list):
        return all(_holds_no_null(one) for one in value)
    return value is not None


@given(st.binary(max_size=60))
def test_malformed_bytes_raise_a_document_error_only(raw: bytes) -> None:
    for decode in (codec.decode_record, codec.decode_credential, memory_codec.decode_memory, memory_codec.decode_scope):
        with pytest.raises(documents.DocumentError):
            decode(raw)


def put(document: dict[str, Any], path: str, value: object) -> bytes:
    target, keys = document, path.split(".")
    for key in keys[:-1]:
        target = target[key]
    if value is None:
        del target[keys[-1]]
    else:
        target[keys[-1]] = value
    return json.dumps(document).encode()


def test_unknown_keys_are_ignored_at_every_depth() -> None:
    document = strategies.full_record()
    plain = codec.decode_record(json.dumps(document).encode())
    document["new"] = {"deep": [None]}
    document["palette"]["new"] = 1
    document["palette"]["location"]["new"] = 1

    assert codec.decode_record(json.dumps(document).encode()) == plain


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("uid", None, "is missing"),
        ("uid", "", "is not 1 to 64 letters, digits and _ -"),
        ("uid", "a\tb", "is not 1 to 64 letters, digits and _ -"),
        ("server.url", "https://a\nb", "holds a line feed"),
        ("name", 7, "is not a string"),
        ("scope", CANARY, "is not one of project, tenant"),
        ("project", [CANARY], "is not an object"),
        ("project.uid", None, "is missing"),
        ("server.url", {CANARY: 1}, "is not a string"),
        ("server.ca_data", 1, "is not a string"),
        ("auth.provider", CANARY, "is not one of serviceAccount, oidc"),
        ("auth.client_id", None, "is missing"),
        ("palette.tags", CANARY, "is not a list"),
        ("palette.tags", [CANARY, 1], "holds something that is not a string"),
        ("palette.created_at", CANARY, "is not a time like 2026-01-31T09:30:00Z"),
        ("palette.created_at", "2026-01-31T09:30:00+00:00", "is not a time like 2026-01-31T09:30:00Z"),
        ("palette.created_at", "2026-02-31T09:30:00Z", "is a time that does not exist"),
        ("palette.created_at", "0001-01-01T00:00:00Z", "is not between the years 1000 and 8999"),
        ("palette.created_at", "9999-12-31T23:59:59Z", "is not between the years 1000 and 8999"),
        ("palette.location.country_code", 1, "is not a string"),
        ("access.state", CANARY, "is not one of ready, degraded, failed, pending"),
        ("access.since", None, "is missing"),
        ("skip_metrics_lookup", 1, "is not true or false"),
    ],
)
def test_an_invalid_record_is_refused_with_the_path_and_without_the_value(path: str, value: object, why: str) -> None:
    with pytest.raises(documents.DocumentError) as caught:
        codec.decode_record(put(strategies.full_record(), path, value))

    assert str(caught.value) == f"cluster record: {path}: {why}"
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("decode", "raw", "text"),
    [
        (codec.decode_record, b"{" + CANARY.encode(), "cluster record: is not JSON"),
        (codec.decode_record, b"[]", "cluster record: is not a JSON object"),
        (codec.decode_credential, b'{"issued_at":"2026-01-31T09:30:00Z"}', "credential: renew_at: is missing"),
        (memory_codec.decode_memory, b'{"failures":true,"retired":[]}', "work: failures: is not a whole number"),
        (memory_codec.decode_memory, b'{"failures":-1,"retired":[]}', "work: failures: is negative"),
        (memory_codec.decode_memory, b'{"failures":0,"retired":[],"validity_s":-1}', "work: validity_s: is negative"),
        (
            memory_codec.decode_memory,
            b'{"failures":18446744073709551615,"retired":[]}',
            "work: failures: is above 999999999999999",
        ),
        (
            memory_codec.decode_memory,
            b'{"failures":0,"retired":[],"validity_s":4294967297}',
            "work: validity_s: is too large",
        ),
        (memory_codec.decode_memory, b'{"failures":0,"retired":[1]}', "work: retired[0]: is not an object"),
        (memory_codec.decode_memory, b'{"failures":0,"retired":[{"name":"s"}]}', "work: retired[0].uid: is missing"),
        (memory_codec.decode_scope, b'{"name":1}', "scope: name: is not a string"),
        (memory_codec.decode_issuer, b'{"issuer":""}', "issuer: issuer: is empty"),
    ],
)
def test_an_invalid_document_is_refused(decode: Callable[[bytes], object], raw: bytes, text: str) -> None:
    with pytest.raises(documents.DocumentError) as caught:
        decode(raw)

    assert str(caught.value) == text


HEAD = builders.head(version=3, clusters=2)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("epoch", "-1", "is not a whole number of at most 15 digits"),
        ("version", "03", "is not a whole number of at most 15 digits"),
        ("version", "٣", "is not a whole number of at most 15 digits"),
        ("clusters", "", "is not a whole number of at most 15 digits"),
        ("complete", "2", "is neither 0 nor 1"),
        ("epoch", "1000000000000000", "is not a whole number of at most 15 digits"),
        ("changed_at", "soon", "is not a time like 2026-01-31T09:30:00Z"),
        ("digest", "", "is empty"),
        ("credentials_digest", "a\nb", "holds a line feed"),
        ("unconfirmed", "[", "is not a list of uids"),
        ("unconfirmed", "{}", "is not a list of uids"),
        ("unconfirmed", "[1]", "is not a list of uids"),
        ("unconfirmed", '["a b"]', "is not a list of uids"),
        ("unconfirmed", '["b","a"]', "is not a sorted list of distinct uids"),
        ("unconfirmed", '["a","a"]', "is not a sorted list of distinct uids"),
        ("unconfirmed", "[]", "is not a sorted list of distinct uids"),
    ],
)
def test_an_invalid_head_is_refused(key: str, value: str, why: str) -> None:
    with pytest.raises(documents.DocumentError) as caught:
        codec.head_from_fields(head_fields(HEAD) | {key: value})

    assert str(caught.value) == f"head: {key}: {why}"


def test_a_head_of_another_schema_is_recognised_even_if_nothing_else_is_valid() -> None:
    with pytest.raises(codec.UnknownSchemaError, match="schema: is not 1"):
        codec.head_from_fields({"schema": "2"})


def test_the_digest_is_the_hash_of_sorted_lines() -> None:
    raw = {f"u{number}": f"record {number}".encode() for number in range(50)}
    shuffled = random.Random(1).sample(sorted(raw), len(raw))
    lines = sorted(uid.encode() + b"\t" + hashlib.sha256(raw[uid]).hexdigest().encode() for uid in raw)

    found = codec.digest({uid: codec.record_hash(raw[uid]) for uid in shuffled})

    assert found == hashlib.sha256(b"\n".join(lines)).hexdigest()


def test_the_digest_of_nothing_is_the_hash_of_nothing() -> None:
    assert codec.digest({}) == hashlib.sha256(b"").hexdigest()


def test_times_are_utc_whole_seconds_with_a_z() -> None:
    there = datetime(2026, 1, 31, 11, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))

    assert documents.format_time(there) == "2026-01-31T09:30:00Z"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        documents.format_time(datetime(2026, 1, 31))  # noqa: DTZ001 - that is the point


def test_a_value_that_json_cannot_carry_is_refused_without_quoting_it() -> None:
    record = replace(codec.decode_record(json.dumps(strategies.full_record()).encode()), title=f"{CANARY}\ud800")

    with pytest.raises(documents.DocumentError) as caught:
        codec.encode_record(record)

    assert CANARY not in str(caught.value)


def test_an_empty_location_and_absent_values_are_left_out_but_tags_are_not() -> None:
    record = builders.record(
        project=None,
        server=None,
        auth=None,
        palette=PaletteFacts(state="Running", location=Location(region_name="eu")),
        kubernetes_version=None,
    )
    bare = replace(record, palette=PaletteFacts(state="Running"))

    assert codec.record_to_dict(record)["palette"] == {
        "state": "Running",
        "health": "",
        "cloud_type": "",
        "tags": [],
        "location": {"region_name": "eu"},
    }
    assert "location" not in json.loads(codec.encode_record(bare))["palette"]
    assert json.loads(codec.encode_record(bare)).keys() == {
        *("uid", "name", "title", "instance", "scope", "palette", "access", "skip_metrics_lookup")
    }


@pytest.mark.parametrize(
    ("ca_data", "hashed"),
    [(base64.b64encode(b"PEM").decode(), b"PEM"), ("not base64!", b"not base64!")],
    ids=["base64 is hashed as PEM", "anything else as it is"],
)
def test_history_holds_the_hash_of_a_ca(ca_data: str, hashed: bytes) -> None:
    was = codec.record_in_history(put(strategies.full_record(), "server.ca_data", ca_data))

    assert was["server"] == {
        "url": "https://10.0.0.1:6443",
        "tls_server_name": "api.web",
        "ca_sha256": hashlib.sha256(hashed).hexdigest(),
    }
    assert was["uid"] == "u1"


@pytest.mark.parametrize("server", [None, {"url": "https://x"}], ids=["no server", "no CA"])
def test_history_keeps_a_record_without_ca_unchanged(server: dict[str, str] | None) -> None:
    raw = put(strategies.full_record(), "server", server)

    assert codec.record_in_history(raw) == json.loads(raw)


def test_history_of_an_unreadable_record_is_its_hash() -> None:
    assert codec.record_in_history(b"{") == {"unreadable_sha256": hashlib.sha256(b"{").hexdigest()}


def test_history_of_a_record_nested_too_deeply_is_its_hash() -> None:
    raw = put(strategies.full_record(), "title", "web")[:-1] + b',"new":' + b'{"a":' * 300 + b"1" + b"}" * 301

    was = codec.record_in_history(raw)

    assert codec.decode_record(raw).uid == "u1"
    assert was == {"unreadable_sha256": hashlib.sha256(raw).hexdigest()}


def test_a_record_without_a_server_has_the_hash_of_three_empty_lines() -> None:
    assert codec.server_hash(None) == hashlib.sha256(b"\n\n").hexdigest()
