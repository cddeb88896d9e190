"""What a reader sees: the snapshot in Redis, and whether its tokens open the clusters."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from builders import token_in
from loopback import LOOPBACK
from palette_sync.assembly.instance import open_shared
from palette_sync.config import load
from palette_sync.core.model import ServiceAccountAuth
from palette_sync.kube.errors import KubeError
from palette_sync.kube.kubeconfig import BearerToken
from palette_sync.kube.transport import KubeApi, Requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from palette_sync.assembly.instance import Shared
    from palette_sync.core.model import ClusterRecord, InstanceState, Secret


class Reader:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def state(self, instance: str = "alpha") -> InstanceState:
        return await self._shared.store.load(instance)

    def token(self, state: InstanceState, record: ClusterRecord) -> Secret:
        return token_in(state, record.uid, sealer=self._shared.sealer, prefix=self._shared.store.keys.prefix)

    async def refused(self, state: InstanceState) -> list[str]:
        """The clusters whose published token is refused; each is tried with the published CA.

        A token may lapse while this reader is on its way; if it was replaced by then, the new one is tried. One that
        was replaced and has not lapsed must still open the cluster.
        """
        found = []
        for record in state.records.values():
            if not isinstance(record.auth, ServiceAccountAuth) or record.uid not in state.credentials:
                continue
            seen = state
            while (error := await self._refusal(seen, seen.records[record.uid])) is not None:
                used, now = seen.credentials[record.uid], await self.state(record.instance)
                lapsed = used.expires_at is not None and used.expires_at <= datetime.now(UTC)
                if not lapsed or now.credentials.get(record.uid) in (None, used):
                    found.append(f"{record.name}: {error}")
                    break
                seen = now
        return found

    async def _refusal(self, state: InstanceState, record: ClusterRecord) -> KubeError | None:
        assert record.server is not None
        try:
            async with KubeApi(
                record.server, BearerToken(self.token(state, record)), timeout=30, requests=Requests(network=LOOPBACK)
            ) as api:
                await api.call("GET pods", api.core.list_pod_for_all_namespaces)
        except KubeError as error:
            return error
        return None


@asynccontextmanager
async def reader(config: Path, **variables: str) -> AsyncIterator[Reader]:
    settings = load(config, environ={**os.environ, **variables})
    async with open_shared(settings) as shared:
        yield Reader(shared)
