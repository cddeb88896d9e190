"""The reference: a bare aiohttp client that sends the requests of a cold pass and does nothing else.

`python -m bench.bare_client OPTIONS` fetches each cluster's kubeconfig from Palette, and over two verified TLS
connections per cluster makes the same calls in the same order as the daemon. It decides nothing, checks nothing,
stores nothing and publishes nothing. It prints a JSON line with the CPU seconds of that work, without imports.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

NAMESPACE, ACCOUNT, SECRET = "backstage-system", "backstage-sa", "backstage-sa-token"
ROLE, BINDING = "backstage-read-only", "backstage-read-only-binding"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
LABELS = {"app.kubernetes.io/managed-by": "palette-sync"}


def _body(kind: str, name: str, version: str = "v1", **rest: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": LABELS}, **rest}


OBJECTS: list[tuple[str, dict[str, Any]]] = [
    ("/api/v1/namespaces", _body("Namespace", NAMESPACE)),
    (f"{CORE}/serviceaccounts", _body("ServiceAccount", ACCOUNT)),
    (f"{CORE}/secrets", _body("Secret", SECRET, type="Opaque")),
    (
        f"{RBAC}/clusterroles",
        _body(
            "ClusterRole",
            ROLE,
            "rbac.authorization.k8s.io/v1",
            rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}],
        ),
    ),
    (
        f"{RBAC}/clusterrolebindings",
        _body(
            "ClusterRoleBinding",
            BINDING,
            "rbac.authorization.k8s.io/v1",
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        ),
    ),
]
REVIEW = {
    "apiVersion": "authorization.k8s.io/v1",
    "kind": "SelfSubjectAccessReview",
    "spec": {"resourceAttributes": {"group": "*", "resource": "*", "verb": "list"}},
}


class BareClient:
    def __init__(self, palette: aiohttp.ClientSession, url: str, api_key: str, places: asyncio.Semaphore) -> None:
        self._palette = palette
        self._url = url
        self._key = api_key
        self._places = places
        self.requests = 0

    async def set_up(self, cluster: dict[str, Any]) -> None:
        headers = {"ApiKey": self._key, "Accept": "application/octet-stream"}
        if cluster["project"]:
            headers["ProjectUid"] = cluster["project"]
        path = f"{self._url}/v1/spectroclusters/{cluster['uid']}/assets/adminKubeconfig"
        async with self._palette.get(path, headers=headers) as response:
            self.requests += 1
            text = await response.read()
        if b":" not in text:  # Palette sends some files in base64
            text = base64.b64decode(text)
        kubeconfig = yaml.load(text, Loader=yaml.CSafeLoader)
        server, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
        ca = base64.b64decode(server["certificate-authority-data"]).decode()
        pair = base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        async with self._places:
            token = await self._grant(server["server"], ca, pair)
            await self._prove(server["server"], ca, token)

    async def _grant(self, url: str, ca: str, pair: bytes) -> str:
        async with _session(_context(ca, pair)) as session:
            await self._call(session, "GET", f"{url}/api/v1/namespaces/{NAMESPACE}")
            await self._call(session, "GET", f"{url}{RBAC}/clusterroles/{ROLE}")
            await self._call(session, "GET", f"{url}{RBAC}/clusterrolebindings/{BINDING}")
            for path, body in OBJECTS:
                await self._call(session, "POST", f"{url}{path}", body)
            secret = await self._call(session, "GET", f"{url}{CORE}/secrets/{SECRET}")
            bound = {"apiVersion": "v1", "kind": "Secret", "name": SECRET, "uid": secret["metadata"]["uid"]}
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 86400, "boundObjectRef": bound},
            }
            answer = await self._call(session, "POST", f"{url}{CORE}/serviceaccounts/{ACCOUNT}/token", body)
        token: str = answer["status"]["token"]
        return token

    async def _prove(self, url: str, ca: str, token: str) -> None:
        async with _session(_context(ca), Authorization=f"Bearer {token}") as session:
            path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
            answer = await self._call(session, "POST", f"{url}{path}", REVIEW)
            assert answer["status"]["allowed"], answer
            await self._call(session, "GET", f"{url}/version")

    async def _call(self, session: aiohttp.ClientSession, method: str, url: str, body: Any = None) -> Any:
        self.requests += 1
        data = orjson.dumps(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else None
        async with session.request(method, url, data=data, headers=headers) as response:
            return orjson.loads(await response.read())


def _context(ca: str, pair: bytes | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    if pair is not None:
        descriptor = os.memfd_create("client")
        os.write(descriptor, pair)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    return context


def _session(context: ssl.SSLContext, **headers: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=1), headers=headers)


async def run(directory: Path, concurrency: int) -> dict[str, float]:
    world = json.loads((directory / "simulator.json").read_text())["instances"][0]
    api_key = (directory / f"{world['name']}.api-key").read_text().strip()
    trust = ssl.create_default_context(cadata=(directory / f"{world['name']}.ca.pem").read_text())
    places = asyncio.Semaphore(concurrency)
    began, started = time.process_time(), time.monotonic()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=32)) as palette:
        client = BareClient(palette, world["url"], api_key, places)
        admitted = asyncio.Semaphore(2 * concurrency)

        async def one(cluster: dict[str, Any]) -> None:
            async with admitted:
                await client.set_up(cluster)

        async with asyncio.TaskGroup() as group:
            for cluster in world["clusters"]:
                group.create_task(one(cluster))
    return {
        "cpu_s": time.process_time() - began,
        "wall_s": time.monotonic() - started,
        "requests": client.requests,
        "clusters": len(world["clusters"]),
    }


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(asyncio.run(run(Path(options["directory"]), options["concurrency"]))) + "\n")
    sys.stdout.flush()
