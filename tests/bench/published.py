"""Writes the snapshot that a daemon would have left after it had worked on every cluster of a simulated world.

It serves measurements of what follows a cold start: restarts, quiet passes, memory. Records, sealed tokens and memory
have the size and form of real ones, and the records are those that the next pass would write, so it finds nothing due.
The tokens are not valid in any cluster; a request that used one would show in the count of the simulator.
"""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from builders import credential
from palette_sync.assembly.instance import open_shared
from palette_sync.assembly.policy import policy_of
from palette_sync.config import load
from palette_sync.core.fold import AccessGained, fold_memory, fold_record
from palette_sync.core.model import AuthMode, ClusterKey, ClusterMemory, Server, ServiceAccountAuth
from palette_sync.core.naming import assign_names
from palette_sync.core.rotation import renew_at
from palette_sync.palette.rows import read_cluster
from palette_sync.simulator.palette_documents import cluster_summary
from palette_sync.store.lease import Lease

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.core.model import Cluster
    from palette_sync.simulator import Simulator
    from palette_sync.simulator.cluster import SimCluster

TOKEN_LENGTH = 900  # characters of a bound token, as a real API server writes them
VALIDITY = timedelta(hours=24)


async def publish_all(simulator: Simulator, config: Path) -> None:
    """Publish every instance of the world."""
    settings = load(config)
    async with open_shared(settings) as shared:
        for name, home in simulator.world.instances.items():
            policy = policy_of(name, settings.instances[name])
            now = datetime.now(UTC).replace(microsecond=0)
            found = home.clusters
            rows = {uid: _row(one) for uid, one in found.items()}
            names = assign_names(rows.values(), published={}, taken=(), prefix=policy.name_prefix)
            put, rotated, memory = {}, {}, {}
            for uid, one in found.items():
                key = ClusterKey(name, uid)
                verdict = AccessGained(
                    server=Server(one.url, base64.b64encode(one.ca_pem.encode()).decode()),
                    auth=ServiceAccountAuth(),
                    kubernetes_version=one.version,
                    desired=policy.fingerprint(AuthMode.SERVICE_ACCOUNT),
                    generation=policy.desired.secret,
                )
                put[uid] = fold_record(
                    rows[uid],
                    key=key,
                    name=names[uid],
                    previous=None,
                    verdict=verdict,
                    credential_alive=True,
                    presentation=policy.presentation,
                    now=now,
                )
                expires_at = now + VALIDITY
                rotated[uid] = credential(
                    secrets.token_urlsafe(TOKEN_LENGTH)[:TOKEN_LENGTH],
                    issued_at=now,
                    renew_at=renew_at(key, issued_at=now, expires_at=expires_at),
                    expires_at=expires_at,
                )
                memory[uid] = fold_memory(ClusterMemory(), verdict, key=key, desired=verdict.desired, now=now)
            async with await Lease.acquire(
                shared.store.link, shared.store.keys, name, ttl=60, holder="bench:0"
            ) as lease:
                publisher = await shared.store.publisher(name, epoch=lease.epoch, writer="bench:0")
                await publisher.publish(put=put, rotated=rotated, memory=memory, complete=True, now=now)


def _row(cluster: SimCluster) -> Cluster:
    """The cluster as Palette lists it, read as the daemon reads it."""
    return read_cluster(cluster_summary(cluster))
