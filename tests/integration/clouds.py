"""The clouds of a stage: their own addresses lead to the simulator, and small fakes answer in place of their APIs."""

from __future__ import annotations

import base64
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from contract.palette_fake import Fake, Seen, tls
from palette_sync.cloud import CloudTokens
from palette_sync.cloud.aws import AwsTokens
from palette_sync.core.model import Secret
from palette_sync.simulator.kubeconfig_files import GKE_LOCATION, GKE_PROJECT

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    import pytest

    from integration.stage import Stage
    from palette_sync.simulator.cluster import SimCluster
    from palette_sync.simulator.world import World

ENABLED = (
    "[defaults.cloud.aws]\nenabled = true\n"
    "[defaults.cloud.google]\nenabled = true\nprojects = ['simulated-project']\n"
    "[defaults.cloud.azure]\nenabled = true\n"
)
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


class Azure:
    """The library's credential, with a token of the simulated identity; `asked` counts."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.asked = 0

    def token(self) -> Secret:
        self.asked += 1
        return Secret(self.stage.simulator.world.accounts.issue("azure"))


class Clouds:
    """Credentials of the simulated identities, as the daemon finds them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.names = resolve_cloud_names(patch)
        self.google: Any = None
        self.azure: Any = None

    async def give(self, stage: Stage, stack: AsyncExitStack) -> None:
        """Put the credentials into the environment, and a CloudTokens that finds them into the stage."""
        accounts = stage.simulator.world.accounts
        self.patch.setenv("AWS_ACCESS_KEY_ID", accounts.aws.access_key_id)
        self.patch.setenv("AWS_SECRET_ACCESS_KEY", accounts.aws.secret)
        self.patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        self.google = GoogleApi(stage.simulator.world)
        await stack.enter_async_context(self.google.fake)
        credentials = SimpleNamespace(valid=True, token=accounts.issue("google"))
        self.patch.setattr("google.auth.default", lambda **_: (credentials, "simulated-project"))
        self.azure = Azure(stage)
        tokens = CloudTokens(
            aws=AwsTokens(),
            azure=self.azure,  # type: ignore[arg-type]  # the library is tested by itself
            google_api=self.google.fake.url,
            google_ca_pem=tls().ca_pem,
            deadline=60,
        )
        stage.shared = replace(stage.shared, cloud=tokens)
