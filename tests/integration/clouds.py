"""The clouds of a stage: their own addresses lead to the simulator, and small fakes answer in place of their APIs."""

from __future__ import annotations

import base64
import socket
from typing import TYPE_CHECKING, Any

from aiohttp import web

from contract.palette_fake import Fake, Seen
from palette_sync.simulator.kubeconfig_files import GKE_LOCATION, GKE_PROJECT

if TYPE_CHECKING:
    import pytest

    from palette_sync.simulator.cluster import SimCluster
    from palette_sync.simulator.world import World

OF_THE_CLOUDS = (".eks.amazonaws.com", ".azmk8s.io")


def resolve_cloud_names(patch: pytest.MonkeyPatch) -> list[str]:
    """Let the names of API servers in the clouds lead to this machine. Returns the names that are asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        asked.append(name)
        return real("127.0.0.1" if name.endswith(OF_THE_CLOUDS) else host, *args, **options)

    patch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


class GoogleApi:
    """The part of Google's Kubernetes Engine API that names the server and the CA of a cluster.

    `lies` replaces fields of its answer. It answers whoever has a token of the simulated identity.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.fake = Fake(self.answer)
        self.asked: list[str] = []
        self.changes: dict[str, Any] = {}
        self.status = 200

    def answer(self, seen: Seen) -> web.StreamResponse:
        self.asked.append(seen.path)
        token = seen.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.world.accounts.user_of("gke", "", token) is None:
            return web.json_response({"error": {"code": 401}}, status=401)
        named = {self.path_of(one): one for one in self.world.clusters.values() if one.cloud_type == "gke"}
        cluster = named.get(seen.path)
        if cluster is None or self.status != 200:
            return web.json_response({"error": {"code": 404}}, status=404 if cluster is None else self.status)
        document = {
            "name": cluster.name,
            "endpoint": cluster.server.removeprefix("https://"),
            "masterAuth": {"clusterCaCertificate": base64.b64encode(cluster.ca_pem.encode()).decode()},
        }
        return web.json_response({**document, **self.changes})

    @staticmethod
    def path_of(cluster: SimCluster) -> str:
        return f"/v1/projects/{GKE_PROJECT}/locations/{GKE_LOCATION}/clusters/{cluster.name}"
