"""The JSON Schemas in the package describe what the store writes, and refuse what it never writes."""

from __future__ import annotations

import json
import re
import zlib
from datetime import timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

import strategies
from builders import NOW, credential, records
from contract.regenerate_snapshots import DIRECTORY
from integration.store_builders import raw_client
from palette_sync.core import memory_codec
from palette_sync.core import snapshot_codec as codec
from palette_sync.core.model import (
    ClusterMemory,
    ClusterRecord,
    IssuerMetadata,
    RetiredSecret,
    ScopeStatus,
    SealedCredential,
)
from palette_sync.store.lease import Lease
from palette_sync.store.signed_value import content_of

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.store.redis import Store

SCHEMAS = {
    path.name.removesuffix(".json"): json.loads(path.read_text(encoding="utf-8"))
    for path in files("palette_sync").joinpath("schemas").iterdir()
    if path.name.endswith(".json")
}
TIME = "2026-03-01T12:00:00Z"
HEX = "0" * 64
GOOD: dict[str, dict[str, Any]] = {
    "head": {
        "schema": "1",
        "epoch": "7",
        "version": "1",
        "digest": HEX,
        "credentials_digest": HEX,
        "mac": HEX,
        "clusters": "0",
        "complete": "1",
        "unconfirmed": '["u1","u2"]',
        "changed_at": TIME,
        "checked_at": TIME,
        "checked_mac": "",
        "writer": "h:1",
    },
    "credential": {"issued_at": TIME, "renew_at": TIME, "expires_at": TIME, "sealed": "e30..AA.BB.CC"},
    "change": {
        "epoch": "7",
        "digest": HEX,
        "credentials_digest": HEX,
        "mac": "",
        "clusters": "1",
        "complete": "1",
        "unconfirmed": "",
        "at": TIME,
        "put": ["u1"],
        "drop": [],
        "rotated": [],
    },
    "history": {"at": TIME, "was": {"u1": None, "u2": {"unreadable_sha256": HEX}}, "mac": HEX},
    "work": {
        "failures": 0,
        "retired": [{"name": "s", "uid": "u", "delete_at": TIME}],
        "done": [{"verb": "create", "reason": "Missing", "at": TIME, "kinds": ["ClusterRole"]}],
    },
    "scope": {"name": "Shop", "error": "away", "since": TIME},
    "issuer": {
        "issuer": "https://i",
        "authorization_endpoint": "",
        "token_endpoint": "",
        "jwks_uri": "",
        "key_ids": ["k"],
        "algorithms": [],
    },
    "status": {
        "pass": {"id": "x", "started_at": TIME, "due": 1},
        "access": {"ready": 1},
        "held": {"u1": {"since": TIME, "reason": "NotListed", "message": ""}},
    },
    "activity": {
        "passes": 3,
        "listings": 1,
        "failed": 1,
        "error": "away",
        "longest_ms": 900,
        "palette": 12,
        "kube": 7,
        "changes": {"rotated": 2},
        "asked": [{"at": TIME, "what": "resync", "by": "somebody"}],
    },
    "control": {
        "id": "0123456789abcdef",
        "request": "pause",
        "at": "1795568239060",
        "by": "somebody",
        "arguments": '{"uid":"c1","reason":"it moves","for_s":60}',
        "mac": HEX,
    },
    "lease": {"holder": "h:1", "id": "x", "since": TIME},
    "cluster-record": strategies.full_record(),
}


def check(name: str, document: object) -> None:
    Draft202012Validator(SCHEMAS[name]).validate(document)


def test_there_is_a_valid_schema_for_every_document() -> None:
    assert SCHEMAS.keys() == GOOD.keys()
    for name, schema in SCHEMAS.items():
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"] == f"urn:palette-sync:schema:1:{name}"
        check(name, GOOD[name])
        check(name, GOOD[name] | {"a key to come": 1})


def undescribed(node: object, path: str) -> list[str]:
    """The members of a schema that have no description."""
    if isinstance(node, list):
        return [found for number, one in enumerate(node) for found in undescribed(one, f"{path}{number}")]
    if not isinstance(node, dict):
        return []
    lacking = []
    for name, member in node.get("properties", {}).items():
        if member is not False and not re.match(r"[A-Z0-9a-z].*\.$", member.get("description", "")):
            lacking.append(f"{path}.{name}")
        lacking += undescribed(member, f"{path}.{name}")
    for word in ("items", "additionalProperties", "anyOf", "oneOf"):
        lacking += undescribed(node.get(word), f"{path}.{word}")
    return lacking


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_member_is_described(name: str) -> None:
    assert SCHEMAS[name]["description"].endswith(".")
    assert undescribed(SCHEMAS[name], name) == []


def test_a_former_record_differs_from_a_record_in_its_server_only() -> None:
    record = {key: SCHEMAS["cluster-record"][key] for key in ("type", "properties", "required")}
    former = SCHEMAS["history"]["properties"]["was"]["additionalProperties"]["anyOf"][2]

    assert {**former["properties"], "server": None} == {**record["properties"], "server": None}
    assert (former["type"], former["required"]) == (record["type"], record["required"])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("head", {"schema": "2"}),
        ("head", {"digest": "abc"}),
        ("head", {"version": "-1"}),
        ("head", {"version": "1000000000000000"}),
        ("head", {"unconfirmed": "[]"}),
        ("head", {"unconfirmed": '["a b"]'}),
        ("change", {"put": ["a\tb"]}),
        ("cluster-record", {"uid": "a\tb"}),
        ("cluster-record", {"uid": "u" * 65}),
        ("cluster-record", {"server": {"url": "https://a\nb"}}),
        ("work", {"failures": 18446744073709551615}),
        ("head", {"complete": "true"}),
        ("credential", {"sealed": "bare"}),
        ("credential", {"expires_at": None}),
        ("change", {"put": "u1"}),
        ("change", {"at": "2026-03-01T12:00:00.5Z"}),
        ("history", {"was": {"u1": strategies.full_record()}}),
        ("work", {"failures": -1}),
        ("work", {"retired": [{"name": "s"}]}),
        ("scope", {"listed_at": "soon"}),
        ("issuer", {"issuer": ""}),
        ("status", {"access": {"fine": 1}}),
        ("status", {"held": {"u1": 2}}),
        ("control", {"request": "reboot"}),
        ("control", {"at": "2026-03-01T12:00:00Z"}),
        ("lease", {"since": 7}),
        ("cluster-record", {"scope": "world"}),
        ("cluster-record", {"auth": {"provider": "oidc"}}),
        ("cluster-record", {"server": None}),
        (
            "cluster-record",
            {"palette": {"state": "Running", "health": "", "cloud_type": "", "tags": [], "location": {}}},
        ),
    ],
)
def test_what_is_never_written_is_refused(name: str, change: dict[str, Any]) -> None:
    assert not Draft202012Validator(SCHEMAS[name]).is_valid(GOOD[name] | change)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_document_without_a_required_member_is_refused(name: str) -> None:
    for member in SCHEMAS[name].get("required", ()):
        document = {key: value for key, value in GOOD[name].items() if key != member}
        assert not Draft202012Validator(SCHEMAS[name]).is_valid(document), member


@given(strategies.records)
def test_every_record_is_valid_and_so_is_its_history(record: ClusterRecord) -> None:
    raw = codec.encode_record(record)

    check("cluster-record", json.loads(raw))
    check("history", {"at": TIME, "was": {record.uid: codec.record_in_history(raw)}, "mac": ""})


@given(strategies.memories, strategies.scopes, strategies.issuers)
def test_every_memory_is_valid(memory: ClusterMemory, scope: ScopeStatus, issuer: IssuerMetadata) -> None:
    check("work", json.loads(memory_codec.encode_memory(memory)))
    check("scope", json.loads(memory_codec.encode_scope(scope)))
    check("issuer", json.loads(memory_codec.encode_issuer(issuer)))


@given(strategies.credentials)
def test_every_credential_is_valid(sealed: SealedCredential) -> None:
    check("credential", json.loads(codec.encode_credential(sealed)) | {"sealed": "e30..AA.BB.CC"})


async def test_everything_in_redis_is_valid(store: Store, valkey_url: str) -> None:
    async with (
        await Lease.acquire(store.link, store.keys, "alpha", ttl=30, holder="h:1") as lease,
        raw_client(valkey_url) as raw,
    ):
        publisher = await store.publisher("alpha", epoch=lease.epoch, writer="h:1")
        await publisher.publish(now=NOW, put=records(3), rotated={"u00000": credential()}, complete=True)
        await publisher.publish(
            now=NOW + timedelta(minutes=1),
            put=records(1, title="new"),
            drop=["u00001"],
            memory={"u00000": ClusterMemory(NOW, 1, NOW, "s-2", "d", (RetiredSecret("s", "u", NOW),))},
            scopes={"tenant": ScopeStatus("t", NOW, "away", NOW)},
            issuers={"https://i": IssuerMetadata("https://i", key_ids=("k",), fetched_at=NOW, error="away")},
            status=GOOD["status"],
        )
        keys = store.keys

        check(
            "head", {name.decode(): value.decode() for name, value in (await raw.hgetall(keys.head("alpha"))).items()}
        )
        check("status", orjson.loads(content_of(await raw.get(keys.status("alpha")))))
        check("lease", orjson.loads(await raw.get(keys.lease("alpha"))))
        for schema, key in {
            "cluster-record": keys.clusters,
            "credential": keys.credentials,
            "work": keys.work,
            "scope": keys.scopes,
            "issuer": keys.issuers,
        }.items():
            values = await raw.hvals(key("alpha"))
            assert values
            for value in values:
                signed = schema in {"work", "scope", "issuer"}
                check(schema, orjson.loads(content_of(value) if signed else value))
        changes, history = await raw.xrange(keys.changes("alpha")), await raw.xrange(keys.history("alpha"))
        assert [entry for entry, _ in changes] == [entry for entry, _ in history] == [b"1-0", b"2-0"]
        for _, fields in changes:
            check("change", change_of(text_of(fields)))
        for _, fields in history:
            was = orjson.loads(zlib.decompress(fields[b"was"]))
            check("history", {"at": fields[b"at"].decode(), "was": was, "mac": fields[b"mac"].decode()})


def text_of(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def change_of(fields: dict[str, str]) -> dict[str, Any]:
    return fields | {name: json.loads(fields[name]) for name in ("put", "drop", "rotated")}


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.json")), ids=lambda path: path.stem)
def test_the_golden_snapshots_are_valid(path: Path) -> None:
    redis = json.loads(path.read_text(encoding="utf-8"))["redis"]

    assert Draft202012Validator(SCHEMAS["head"]).is_valid(redis["head"]) is (
        path.stem not in {"unknown-schema", "long-number"}
    )
    for text in redis["clusters"].values():
        check("cluster-record", json.loads(text))
    for text in redis["credentials"].values():
        check("credential", json.loads(text))
    for entry in redis["changes"]:
        check("change", change_of(entry["fields"]))
