"""Writes the golden snapshots: `python tests/contract/regenerate_snapshots.py`.

Each file holds an instance as Redis would hold it, the seal keys of a reader, and what that reader must find. The
project's own writer makes them on a real server, with a fixed epoch, time and JWE initialization vectors, so that the
files are the same each time. Readers in every language are tested against them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from palette_sync.core.model import (
    Access,
    AccessState,
    ClusterRecord,
    Credential,
    Location,
    OidcAuth,
    PaletteFacts,
    Project,
    Scope,
    Secret,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.snapshot_codec import digest, record_hash
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys, Unsealed

DIRECTORY = Path(__file__).parent / "snapshots"
INSTANCE = "alpha"
EPOCH = 1_800_000_000_000
NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = hashlib.sha256(b"golden snapshots").digest()
KEY_LINE = f"golden {base64.urlsafe_b64encode(KEY).decode().rstrip('=')}"
OTHER_LINE = f"other {base64.urlsafe_b64encode(hashlib.sha256(b'another key').digest()).decode().rstrip('=')}"
CA = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nZ29sZGVu\n-----END CERTIFICATE-----\n").decode()

Golden = dict[str, Any]


class FixedSealKeys(SealKeys):
    """Seals with an initialization vector derived from the content, which is acceptable for test data only."""

    def seal(self, instance: str, uid: str, token: Secret) -> str:
        header = {"alg": "dir", "enc": "A256GCM", "kid": "golden", "instance": instance, "uid": uid}
        protected = _b64(json.dumps(header, separators=(",", ":")).encode())
        iv = hashlib.sha256(f"{instance}|{uid}|{token.reveal()}".encode()).digest()[:12]
        sealed = AESGCM(KEY).encrypt(iv, token.reveal().encode(), protected.encode())
        return f"{protected}..{_b64(iv)}.{_b64(sealed[:-16])}.{_b64(sealed[-16:])}"


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def cluster(uid: str, name: str, state: AccessState, reason: str = "Verified", **changes: Any) -> ClusterRecord:
    record = ClusterRecord(
        uid=uid,
        name=f"alpha-{name}",
        title=name,
        instance=INSTANCE,
        scope=Scope.PROJECT,
        project=Project("5f3c0000000000000000a001", "Shop"),
        server=Server(f"https://{name}.example:6443", ca_data=CA),
        auth=ServiceAccountAuth(),
        palette=PaletteFacts(
            state="Running",
            health="Healthy",
            cloud_type="aws",
            created_at=NOW - timedelta(days=90),
            tags=("env:prod", "team:web"),
            location=Location(country_code="DE", region_code="eu-central-1"),
        ),
        access=Access(state, reason, "" if reason == "Verified" else "as the last check told", NOW - HOUR),
        kubernetes_version="v1.31.2",
        dashboard_url=f"https://console.example/{uid}",
    )
    return replace(record, **changes)


READY, OIDC, PENDING, FAILED, DEGRADED, ETERNAL = (f"5f3c0000000000000000{number:04}" for number in range(1, 7))


def basic() -> dict[str, ClusterRecord]:
    return {
        READY: cluster(READY, "web", AccessState.READY),
        OIDC: cluster(
            OIDC, "login", AccessState.READY, auth=OidcAuth("spectrocloud", "https://issuer.example", "backstage")
        ),
        PENDING: cluster(
            PENDING, "new", AccessState.PENDING, "NotRunning", server=None, auth=None, kubernetes_version=None
        ),
        FAILED: cluster(FAILED, "gone", AccessState.FAILED, "Unreachable", palette=PaletteFacts(state="Running")),
        DEGRADED: cluster(DEGRADED, "slow", AccessState.DEGRADED, "Unreachable"),
        ETERNAL: cluster(
            ETERNAL, "eternal", AccessState.READY, title="ünï \u2028 cöde 🛰", scope=Scope.TENANT, project=None
        ),
    }


def token_of(uid: str) -> str:
    return f"token-of-{uid}"


def credential(uid: str) -> Credential:
    return Credential(
        Secret(token_of(uid)),
        issued_at=NOW - HOUR,
        renew_at=NOW + timedelta(hours=12),
        expires_at=None if uid == ETERNAL else NOW + timedelta(days=36500),
    )


async def generate() -> dict[str, str]:
    """Return the text of every file by its name."""
    records = basic()
    everything = {uid: credential(uid) for uid in (READY, DEGRADED, ETERNAL)}
    sealer, bare = FixedSealKeys.from_lines(KEY_LINE), Unsealed()
    async with EmbeddedValkey() as server:
        golden = {
            "basic": await capture(server.url, sealer, [records], everything, complete=True),
            "empty-complete": await capture(server.url, sealer, [{}], {}, complete=True),
            "incomplete": await capture(server.url, sealer, [{READY: records[READY]}], {}, complete=None),
            "one-cluster": await capture(
                server.url, sealer, [{READY: records[READY]}], {READY: credential(READY)}, complete=True
            ),
            "unsealed": await capture(server.url, bare, [records], everything, complete=True),
            "several-versions": await capture(
                server.url, sealer, [{READY: records[READY]}, {OIDC: records[OIDC]}], {}, complete=True
            ),
        }
    golden["incomplete"]["about"] = "the first pass is not over: a reader keeps clusters that it knows and this lacks"
    golden["one-cluster"]["about"] = "one cluster and its token: the example of docs/redis-contract.md"
    golden["unsealed"] |= {"about": 'written with seal = "none": bare tokens, no mac', "keys": []}
    golden["tampered-record"] = tampered(golden["basic"])
    golden["tampered-digest"] = tampered(golden["basic"], with_digest=True)
    golden["missing-record"] = missing(golden["basic"])
    golden["foreign-seal-key"] = refused(golden["basic"], "the reader has another key", "mac") | {"keys": [OTHER_LINE]}
    golden["rotated-seal-key"] = copy(golden["basic"]) | {
        "about": "the reader's first key is a newer one; the older one still opens",
        "keys": [OTHER_LINE, KEY_LINE],
    }
    golden["moved-token"] = moved(golden["basic"])
    golden["unknown-schema"] = refused(golden["basic"], "written by a version to come", "schema")
    golden["unknown-schema"]["redis"]["head"]["schema"] = "2"
    return {
        f"{name}.json": json.dumps(one, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
        for name, one in golden.items()
    }


async def capture(
    url: str,
    sealer: SealKeys | Unsealed,
    versions: list[dict[str, ClusterRecord]],
    credentials: dict[str, Credential],
    *,
    complete: bool | None,
) -> Golden:
    """Publish the versions one after the other, and read back what Redis then holds."""
    client: Any = aioredis.Redis.from_url(url, decode_responses=True)
    await client.flushall()
    async with Store.open(url, prefix="golden", sealer=sealer, history=0) as store:
        await client.set(store.keys.epoch(INSTANCE), EPOCH)
        publisher = await store.publisher(INSTANCE, epoch=EPOCH, writer="golden:1")
        for number, put in enumerate(versions, start=1):
            last = number == len(versions)
            await publisher.publish(
                now=NOW + timedelta(minutes=number),
                put=put,
                rotated=credentials if last else {},
                complete=complete if last else None,
            )
        redis = {
            "head": await client.hgetall(store.keys.head(INSTANCE)),
            "clusters": await client.hgetall(store.keys.clusters(INSTANCE)),
            "credentials": await client.hgetall(store.keys.credentials(INSTANCE)),
            "changes": [
                {"id": entry, "fields": fields} for entry, fields in await client.xrange(store.keys.changes(INSTANCE))
            ],
        }
    await client.aclose()
    every = {uid: record for put in versions for uid, record in put.items()}
    return {
        "about": "as the daemon publishes it",
        "instance": INSTANCE,
        "keys": [KEY_LINE],
        "redis": redis,
        "expected": {
            "accepted": True,
            "epoch": EPOCH,
            "version": len(versions),
            "complete": bool(complete),
            "clusters": {uid: seen(record, uid in credentials) for uid, record in every.items()},
        },
    }


def seen(record: ClusterRecord, sealed: bool) -> Golden:  # noqa: FBT001 - whether it has a credential
    """What a reader must find of a cluster. `token` is absent where there is none, null where it must not open."""
    found: Golden = {"name": record.name, "access": record.access.state.value, "reason": record.access.reason}
    if record.server is not None:
        found |= {"url": record.server.url, "ca_data": record.server.ca_data}
    if record.auth is not None:
        found["provider"] = "oidc" if isinstance(record.auth, OidcAuth) else "serviceAccount"
    return found | ({"token": token_of(record.uid)} if sealed else {})


def copy(golden: Golden) -> Golden:
    found: Golden = json.loads(json.dumps(golden))
    return found


def refused(golden: Golden, about: str, reason: str) -> Golden:
    """The same state, which a reader must refuse as a whole, with the reason."""
    return copy(golden) | {"about": about, "expected": {"accepted": False, "reason": reason}}


def tampered(golden: Golden, *, with_digest: bool = False) -> Golden:
    about = "one record names another server" + ("; the digest was made to fit" if with_digest else "")
    found = refused(golden, about, "mac" if with_digest else "digest")
    clusters = found["redis"]["clusters"]
    clusters[READY] = clusters[READY].replace("https://web.example:6443", "https://evil.example:6443")
    if with_digest:
        fitting = digest({uid: record_hash(text.encode()) for uid, text in clusters.items()})
        found["redis"]["head"]["digest"] = fitting
    return found


def missing(golden: Golden) -> Golden:
    found = refused(golden, "one record was evicted", "count")
    del found["redis"]["clusters"][READY]
    return found


def moved(golden: Golden) -> Golden:
    found = copy(golden)
    found["about"] = "the credential of one cluster was copied over that of another: it must not open there"
    found["redis"]["credentials"][DEGRADED] = found["redis"]["credentials"][READY]
    found["expected"]["clusters"][DEGRADED]["token"] = None
    return found


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    files = asyncio.run(generate())
    for old in DIRECTORY.glob("*.json"):
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
