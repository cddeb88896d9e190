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
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
    Pause,
    Project,
    Scope,
    Secret,
    Server,
    ServiceAccountAuth,
)
from palette_sync.core.snapshot_codec import SealedFor, digest, record_hash
from palette_sync.store.embedded import EmbeddedValkey
from palette_sync.store.life import Life
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys, Unsealed

if TYPE_CHECKING:
    from collections.abc import Collection

DIRECTORY = Path(__file__).parent / "snapshots"
INSTANCE = "alpha"
PREFIX = "golden"
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

    def seal(self, target: SealedFor, token: Secret) -> str:
        header = {"alg": "dir", "enc": "A256GCM", "kid": "golden", **asdict(target)}
        protected = _b64(json.dumps(header, separators=(",", ":")).encode())
        iv = hashlib.sha256(f"{protected}|{token.reveal()}".encode()).digest()[:12]
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


class MisboundSealKeys(FixedSealKeys):
    """Seals every token for something else than its cluster, as `changes` says: a writer with an error."""

    changes: ClassVar[dict[str, str]] = {}

    def seal(self, target: SealedFor, token: Secret) -> str:
        return super().seal(replace(target, **self.changes), token)


class OtherServer(MisboundSealKeys):
    changes: ClassVar[dict[str, str]] = {"server": hashlib.sha256(b"another server").hexdigest()}


class OtherTimes(MisboundSealKeys):
    changes: ClassVar[dict[str, str]] = {"expires_at": "2127-01-01T00:00:00Z"}


async def generate() -> dict[str, str]:
    """Return the text of every file by its name."""
    records = basic()
    everything = {uid: credential(uid) for uid in (READY, DEGRADED, ETERNAL)}
    one, one_token = {READY: records[READY]}, {READY: credential(READY)}
    stopped = {READY: replace(records[READY], pause=Pause("it moves", "anna@host:1", NOW - HOUR, NOW + HOUR))}
    moved = {READY: replace(records[READY], server=Server("https://web-2.example:6443", ca_data=CA))}
    sealer, bare = FixedSealKeys.from_lines(KEY_LINE), Unsealed()
    async with EmbeddedValkey() as server:
        url = server.url
        golden = {
            "basic": await capture(url, sealer, [records], everything, complete=True),
            "empty-complete": await capture(url, sealer, [{}], {}, complete=True),
            "incomplete": await capture(url, sealer, [one], {}, complete=None),
            "one-cluster": await capture(url, sealer, [one], one_token, complete=True),
            "unsealed": await capture(url, bare, [records], everything, complete=True),
            "several-versions": await capture(url, sealer, [one, {OIDC: records[OIDC]}], {}, complete=True),
            "unconfirmed": await capture(url, sealer, [records], everything, complete=True, unseen={DEGRADED, READY}),
            "moved-server": await capture(url, sealer, [one, moved], one_token, complete=True, issued_first=True),
            "paused": await capture(url, sealer, [stopped], one_token, complete=True),
            "token-of-another-server": await capture(
                url, OtherServer.from_lines(KEY_LINE), [one], one_token, complete=True
            ),
            "token-with-other-times": await capture(
                url, OtherTimes.from_lines(KEY_LINE), [one], one_token, complete=True
            ),
        }
    golden["incomplete"]["about"] = "the first pass is not over: a reader keeps clusters that it knows and this lacks"
    golden["one-cluster"]["about"] = "one cluster and its token: the example of docs/redis-contract.md"
    golden["unsealed"] |= {"about": 'written with seal = "none": bare tokens, no mac', "keys": []}
    golden["unconfirmed"]["about"] = "a reader that holds a record of an unconfirmed cluster keeps it and its token"
    golden["paused"]["about"] = "an operator paused the cluster: a reader goes on using its token"
    golden["moved-server"]["about"] = "a cluster got another address and kept its token, which was sealed again"
    for name in ("token-of-another-server", "token-with-other-times"):
        golden[name]["about"] = "an authentic snapshot with a token that is sealed for something else: it must not open"
        golden[name]["expected"]["clusters"][READY]["token"] = None
    whole = golden["basic"]
    golden |= {
        "tampered-record": tampered(whole),
        "tampered-digest": tampered(whole, with_digest=True),
        "missing-record": missing(whole),
        "foreign-seal-key": refused(whole, "the reader has another key", "mac") | {"keys": [OTHER_LINE]},
        "rotated-seal-key": copy(whole)
        | {"about": "the reader's first key is a newer one; the older one still opens", "keys": [OTHER_LINE, KEY_LINE]},
        "moved-token": moved_token(whole),
        "removed-token": removed_token(whole),
        "stray-token": stray_token(golden["incomplete"], whole),
        "other-prefix": refused(whole, "the keys were copied to another prefix", "mac") | {"prefix": "copied"},
        "old-records": old_records(golden["moved-server"], golden["one-cluster"]),
        "folded-records": folded(whole),
        "odd-uid": odd_uid(whole),
        "long-number": with_head(whole, "a number of 16 digits", "head", epoch="1800000000000000"),
        "lowered-count": lowered_count(whole),
        "changed-complete": with_head(whole, "complete was changed", "mac", complete="0"),
        "changed-unconfirmed": with_head(whole, "unconfirmed was changed", "mac", unconfirmed=f'["{READY}"]'),
        "changed-time": with_head(whole, "changed_at was changed", "mac", changed_at="2027-01-16T08:00:00Z"),
        "unknown-schema": with_head(whole, "written by a version to come", "schema", schema="2"),
        "forged-check": forged_check(whole),
    }
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
    unseen: Collection[str] = (),
    issued_first: bool = False,
) -> Golden:
    """Publish the versions one after the other, and read back what Redis then holds.

    The credentials belong to the last version, or to the first one.
    """
    client: Any = aioredis.Redis.from_url(url, decode_responses=True)
    await client.flushall()
    async with Store.open(url, prefix=PREFIX, sealer=sealer, history=0) as store:
        await client.set(store.keys.epoch(INSTANCE), EPOCH)
        publisher = await store.publisher(INSTANCE, epoch=EPOCH, writer="golden:1", life=Life())
        for number, put in enumerate(versions, start=1):
            last = number == len(versions)
            await publisher.publish(
                now=NOW + timedelta(minutes=number),
                put=put,
                rotated=credentials if number == (1 if issued_first else len(versions)) else {},
                complete=complete if last else None,
                unseen=unseen,
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
        "prefix": PREFIX,
        "keys": [KEY_LINE],
        "redis": redis,
        "expected": {
            "accepted": True,
            "epoch": EPOCH,
            "version": len(versions),
            "complete": bool(complete),
            "checked_at": redis["head"]["checked_at"],
            "unconfirmed": sorted(unseen),
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


def with_head(golden: Golden, about: str, reason: str, **fields: str) -> Golden:
    """Refused because fields of the head were changed."""
    found = refused(golden, about, reason)
    found["redis"]["head"] |= fields
    return found


def fit_digests(golden: Golden) -> None:
    """Make both digests fit, as somebody without a key can."""
    redis = golden["redis"]
    for name, key in (("digest", "clusters"), ("credentials_digest", "credentials")):
        redis["head"][name] = digest({uid: record_hash(text.encode()) for uid, text in redis[key].items()})


def tampered(golden: Golden, *, with_digest: bool = False) -> Golden:
    about = "one record names another server" + ("; the digest was made to fit" if with_digest else "")
    found = refused(golden, about, "mac" if with_digest else "digest")
    clusters = found["redis"]["clusters"]
    clusters[READY] = clusters[READY].replace("https://web.example:6443", "https://evil.example:6443")
    if with_digest:
        fit_digests(found)
    return found


def missing(golden: Golden) -> Golden:
    found = refused(golden, "one record was evicted", "count")
    del found["redis"]["clusters"][READY]
    return found


def lowered_count(golden: Golden) -> Golden:
    found = refused(golden, "one record was removed; count and digests were made to fit", "mac")
    del found["redis"]["clusters"][READY], found["redis"]["credentials"][READY]
    found["redis"]["head"]["clusters"] = str(len(found["redis"]["clusters"]))
    fit_digests(found)
    return found


def moved_token(golden: Golden) -> Golden:
    found = refused(golden, "the credential of one cluster was copied over that of another", "credentials_digest")
    found["redis"]["credentials"][DEGRADED] = found["redis"]["credentials"][READY]
    return found


def removed_token(golden: Golden) -> Golden:
    found = refused(golden, "one credential was removed", "credentials_digest")
    del found["redis"]["credentials"][READY]
    return found


def stray_token(golden: Golden, other: Golden) -> Golden:
    found = refused(golden, "a credential without a record", "credentials_digest")
    found["redis"]["credentials"][DEGRADED] = other["redis"]["credentials"][DEGRADED]
    return found


def old_records(golden: Golden, former: Golden) -> Golden:
    found = refused(golden, "the head and the records of an older version beside the present credentials", "digest")
    found["redis"]["head"], found["redis"]["clusters"] = former["redis"]["head"], former["redis"]["clusters"]
    return found | {"expected": {"accepted": False, "reason": "credentials_digest"}}


def folded(golden: Golden) -> Golden:
    """All records folded into one field: its name repeats the lines of the digest, up to the last hash."""
    found = refused(golden, "all records were folded into one field by a name with TAB and line feed", "uid")
    redis = found["redis"]
    lines = sorted(f"{uid}\t{record_hash(text.encode())}" for uid, text in redis["clusters"].items())
    last = max(redis["clusters"])
    name = "\n".join(lines)[: -len(record_hash(b"")) - 1]
    redis["clusters"] = {name: redis["clusters"][last]}
    redis["head"]["clusters"] = "1"
    return found


def odd_uid(golden: Golden) -> Golden:
    found = refused(golden, "a field whose name is no uid", "uid")
    found["redis"]["clusters"]["not a uid"] = found["redis"]["clusters"][READY]
    return found


def forged_check(golden: Golden) -> Golden:
    found = copy(golden)
    found["about"] = "checked_at was changed: it counts as absent, and the version stays valid"
    found["redis"]["head"]["checked_at"] = "2027-01-15T09:00:00Z"
    found["expected"]["checked_at"] = None
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
