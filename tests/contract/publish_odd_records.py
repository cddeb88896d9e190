"""Publishes random records, odd on purpose, with the project's own writer, for readers in other languages.

`python tests/contract/publish_odd_records.py URL PREFIX SEAL_LINE SEED RECORDS VERSIONS`: one line of JSON for each
version, which says what a reader must find then; the next one is published once a line arrives on standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

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
from palette_sync.store.lease import Lease
from palette_sync.store.redis import Store
from palette_sync.store.seal import SealKeys

_T = TypeVar("_T")

INSTANCE = "alpha"
NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
# Separators of every layer between two languages, and characters that encoders, decoders and sorters get wrong.
ODD = ["\x00", "\x1f", "\x7f", "\t", "\n", '"', "\\", "\u2028", "\ufeff", "\uffff", "ü", "e\u0301", "\U0001f6f0"]
UID_ALPHABET = "abcXYZ019_-"
ALPHABET = [*"abcXYZ019-_.:/ ,;|={}[]", *ODD, "__proto__"]


class Dice:
    """Random values, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0

    def text(self, least: int = 0) -> str:
        return "".join(self._random.choices(ALPHABET, k=self._random.randint(least, 12)))

    def line(self, least: int = 0) -> str:
        """A text that may be part of what is authenticated: any characters but a line feed."""
        return self.text(least).replace("\n", "-")

    def uid(self, number: int) -> str:
        """A uid of any form that is allowed."""
        odd = "".join(self._random.choices(UID_ALPHABET, k=self._random.randint(0, 40)))
        return f"{number:x}-{odd}" if self.one_in(10) else f"{number:024x}"

    def maybe(self, value: _T) -> _T | None:
        return None if self.one_in(4) else value

    def record(self, number: int) -> ClusterRecord:
        return ClusterRecord(
            uid=self.uid(number),
            name=f"alpha-{number}{self.text()}",
            title=self.text(),
            instance=INSTANCE,
            scope=self._random.choice(list(Scope)),
            project=self.maybe(Project(self.uid(number), self.text())),
            server=self.maybe(Server(self.line(1), self.maybe(self.line(1)), self.maybe(self.line(1)))),
            auth=self.maybe(
                ServiceAccountAuth() if self.one_in(2) else OidcAuth(self.text(1), self.text(), self.text())
            ),
            palette=PaletteFacts(
                state=self.text(),
                health=self.text(),
                cloud_type=self.text(),
                created_at=self.maybe(NOW),
                tags=tuple(self.text() for _ in range(self._random.randint(0, 3))),
                location=Location(self.text(), self.text(), self.text(), self.text()),
            ),
            access=Access(self._random.choice(list(AccessState)), self.text(), self.text(), NOW),
            kubernetes_version=self.maybe(self.text()),
            skip_metrics_lookup=self.one_in(2),
            dashboard_url=self.maybe(self.text()),
        )

    def credential(self, name: str) -> Credential:
        expires_at = self.maybe(NOW + timedelta(seconds=self._random.randint(1, 10**9)))
        return Credential(Secret(f"token-of-{name}"), NOW, NOW, expires_at)


def seen(record: ClusterRecord, credential: Credential | None) -> dict[str, Any]:
    """What a reader must find of a cluster; null = absent."""
    server, auth, palette, access = record.server, record.auth, record.palette, record.access
    return {
        "uid": record.uid,
        "name": record.name,
        "title": record.title,
        "instance": record.instance,
        "scope": record.scope.value,
        "project": record.project and [record.project.uid, record.project.name],
        "server": server and [server.url, server.ca_data, server.tls_server_name],
        "auth": auth and (["oidc", auth.oidc_token_provider] if isinstance(auth, OidcAuth) else ["serviceAccount"]),
        "palette": [palette.state, palette.health, palette.cloud_type, list(palette.tags)],
        "access": [access.state.value, access.reason, access.message],
        "kubernetes_version": record.kubernetes_version,
        "skip_metrics_lookup": record.skip_metrics_lookup,
        "dashboard_url": record.dashboard_url,
        "token": credential and credential.token.reveal(),
        "expires_at": credential and credential.expires_at and int(credential.expires_at.timestamp() * 1000),
    }


async def main(url: str, prefix: str, seal_line: str, *numbers: str) -> None:
    seed, count, versions = map(int, numbers)
    dice = Dice(seed)
    records: dict[str, ClusterRecord] = {}
    credentials: dict[str, Credential] = {}
    async with Store.open(url, prefix=prefix, sealer=SealKeys.from_lines(seal_line)) as store:
        lease = await Lease.acquire(store.link, store.keys, INSTANCE, ttl=600, holder="tests")
        publisher = await store.publisher(INSTANCE, epoch=lease.epoch, writer="tests:1")
        for turn in range(versions):
            new = [dice.record(turn * count + number) for number in range(count)]
            drop = {uid for uid in records if dice.one_in(5)}
            left = [one for uid, one in records.items() if uid not in drop]
            put = {one.uid: one for one in (*new, *(replace(one, title=dice.text()) for one in left if dice.one_in(5)))}
            records = {one.uid: one for one in left} | put
            rotated = {uid: dice.credential(f"{uid.encode().hex()}-{turn}") for uid in records if dice.one_in(2)}
            removed = {uid for uid in credentials if uid in records and uid not in rotated and dice.one_in(9)}
            credentials = {
                uid: one for uid, one in {**credentials, **rotated}.items() if uid in records and uid not in removed
            }
            await publisher.publish(
                now=NOW, put=put, drop=drop, rotated={**rotated, **dict.fromkeys(removed)}, complete=True
            )
            clusters = [seen(one, credentials.get(uid)) for uid, one in records.items()]
            print(json.dumps({"version": publisher.version, "clusters": clusters}), flush=True)
            await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
