"""The control API: changes to the simulated world from other processes, as JSON over plain HTTP.

It listens on loopback and needs no credential. It returns no secrets, except a token that a request asked it to issue.
Bodies and answers are JSON; an invalid request is answered with 400 or 404 and `{"error": ...}`.

    GET    /                                the instances with their projects and clusters
    PATCH  /instances/{name}                {"key_permission": "tenant"|"project", "key_projects": [uid]|null,
                                             "key_active": bool, "rate_limits": bool,
                                             "behaviour": the fields of `palette_behaviour.Behaviour`}
    POST   /projects                        {"instance", "name"} -> {"uid"}
    PATCH  /projects/{uid}                  {"name"}
    DELETE /projects/{uid}                  also deletes its clusters
    POST   /clusters                        {"instance", "project": uid|null, "name", "oidc", "state", "health", "tags",
                                             "virtual"} -> {"uid", "url"}
    GET    /clusters/{uid}                  its properties, and the numbers of tokens issued and of writes
    PATCH  /clusters/{uid}                  any of {"name", "project", "state", "health", "tags", "oidc", "paused",
                                             "proxied", "admin_download", "token_cap", "fill_delay",
                                             "termination_delay", "imported": bool|"read-only"}
    DELETE /clusters/{uid}
    POST   /clusters/{uid}/revoke-tokens    every token issued so far answers 401
    POST   /clusters/{uid}/user-token       {"name", "groups", "claims": {}} -> {"token", "key"}: what a person logs in
                                             with, if it has OIDC, and the JWK that verifies it
    POST   /clusters/{uid}/renew-authority  a new CA
    POST   /clusters/{uid}/shut             its API server refuses connections
    POST   /clusters/{uid}/open             its API server listens again, on the same port
    GET    /clusters/{uid}/kube/{kind}                       names, by namespace
    GET    /clusters/{uid}/kube/{kind}/{namespace}/{name}    an object; namespace "-" for cluster-wide kinds. The data
                                                             of Secrets is left out
    PUT    /clusters/{uid}/kube/{kind}/{namespace}/{name}    write an object without the API's checks (drift)
    PATCH  /clusters/{uid}/kube/{kind}/{namespace}/{name}    JSON merge patch, also without checks
    DELETE /clusters/{uid}/kube/{kind}/{namespace}/{name}    remove an object immediately
    GET    /faults                          the active faults with their hits
    POST   /faults                          the fields of `faults.Fault` -> {"id"}
    DELETE /faults                          DELETE /faults/{id}
    GET    /requests?last=100               the latest requests, oldest first
    GET    /requests/count?target=&instance=&cluster=&method=&path_regex=   -> {"count"}
    DELETE /requests                        reset log and counters
    GET    /writes?after=0                  the requests that may change objects in clusters, oldest first, without the
                                             first `after` -> {"number": of all until now, "writes": [...]}
    POST   /clock                           {"advance": seconds}: moves the API servers' clock
    PATCH  /                                {"latency": seconds}
"""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from palette_sync.simulator.faults import Fault
from palette_sync.simulator.kube_resources import SECRETS, resource_named
from palette_sync.simulator.write_config import describe, describe_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from palette_sync.simulator.cluster import SimCluster
    from palette_sync.simulator.exchange import Json
    from palette_sync.simulator.faults import FaultBook
    from palette_sync.simulator.request_log import RequestLog
    from palette_sync.simulator.world import World

_HOST = "127.0.0.1"
_FAULT_FIELDS = frozenset(field.name for field in fields(Fault))
_CLUSTER_WIDE = "-"
_OBJECT = "/clusters/{uid}/kube/{kind}/{namespace}/{name}"


class ControlApi:
    """`set_latency` changes the latency (seconds) of every answer of the simulator."""

    def __init__(
        self, world: World, faults: FaultBook, requests: RequestLog, set_latency: Callable[[float], None]
    ) -> None:
        self.url = ""
        self._world = world
        self._faults = faults
        self._requests = requests
        self._set_latency = set_latency
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.get("/", self._describe),
                web.patch("/", self._tune),
                web.patch("/instances/{name}", self._change_instance),
                web.post("/projects", self._add_project),
                web.patch("/projects/{uid}", self._rename_project),
                web.delete("/projects/{uid}", self._remove_project),
                web.post("/clusters", self._add_cluster),
                web.get("/clusters/{uid}", self._show_cluster),
                web.patch("/clusters/{uid}", self._change_cluster),
                web.delete("/clusters/{uid}", self._remove_cluster),
                web.post("/clusters/{uid}/revoke-tokens", self._revoke_tokens),
                web.post("/clusters/{uid}/user-token", self._user_token),
                web.post("/clusters/{uid}/renew-authority", self._renew_authority),
                web.post("/clusters/{uid}/shut", self._shut_api_server),
                web.post("/clusters/{uid}/open", self._open_api_server),
                web.get("/clusters/{uid}/kube/{kind}", self._names),
                web.get(_OBJECT, self._show_object),
                web.put(_OBJECT, self._put_object),
                web.patch(_OBJECT, self._patch_object),
                web.delete(_OBJECT, self._remove_object),
                web.get("/faults", self._list_faults),
                web.post("/faults", self._add_fault),
                web.delete("/faults", self._clear_faults),
                web.delete("/faults/{id}", self._remove_fault),
                web.get("/requests", self._list_requests),
                web.get("/requests/count", self._count_requests),
                web.delete("/requests", self._reset_requests),
                web.get("/writes", self._list_writes),
                web.post("/clock", self._advance),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, _HOST, 0).start()
        self.url = f"http://{_HOST}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # The world and its instances.

    async def _describe(self, _: web.Request) -> web.Response:
        return _json(describe(self._world))

    async def _tune(self, request: web.Request) -> web.Response:
        body = await _body(request, {"latency"})
        self._set_latency(float(body["latency"]))
        return _json({})

    async def _advance(self, request: web.Request) -> web.Response:
        self._world.advance(float((await _body(request, {"advance"}))["advance"]))
        return _json({})

    async def _change_instance(self, request: web.Request) -> web.Response:
        allowed = {"key_permission", "key_projects", "key_active", "rate_limits", "behaviour"}
        body = await _body(request, allowed)
        instance = self._world.instances[request.match_info["name"]]
        if "key_permission" in body or "key_projects" in body:
            permission = body.get("key_permission", instance.key_permission)
            if permission not in {"tenant", "project"}:
                raise ValueError("key_permission is tenant or project")
            self._world.set_key_permission(instance, permission, body.get("key_projects"))
        if "key_active" in body:
            self._world.set_key_active(instance, active=bool(body["key_active"]))
        if "rate_limits" in body:
            instance.rate_limits = bool(body["rate_limits"])
        for name, value in dict(body.get("behaviour", {})).items():
            instance.behaviour.change(name, value)
        return _json({})

    # Projects.

    async def _add_project(self, request: web.Request) -> web.Response:
        body = await _body(request, {"instance", "name"})
        return _json({"uid": self._world.add_project(body["instance"], str(body["name"])).uid}, 201)

    async def _rename_project(self, request: web.Request) -> web.Response:
        body = await _body(request, {"name"})
        self._world.rename_project(request.match_info["uid"], str(body["name"]))
        return _json({})

    async def _remove_project(self, request: web.Request) -> web.Response:
        self._world.remove_project(request.match_info["uid"])
        return _json({})

    # Clusters.

    def _cluster(self, request: web.Request) -> SimCluster:
        return self._world.cluster(request.match_info["uid"])

    async def _add_cluster(self, request: web.Request) -> web.Response:
        allowed = {"instance", "project", "name", "oidc", "state", "health", "tags", "virtual"}
        body = await _body(request, allowed)
        instance, project = body.pop("instance"), body.pop("project", None)
        cluster = await self._world.add_cluster(instance, project, **body)
        return _json({"uid": cluster.uid, "url": cluster.url}, 201)

    async def _show_cluster(self, request: web.Request) -> web.Response:
        cluster = self._cluster(request)
        counters = {"tokens_issued": cluster.tokens.issued, "writes": cluster.kube.writes}
        return _json({**describe_cluster(cluster), **counters})

    async def _change_cluster(self, request: web.Request) -> web.Response:
        world, cluster = self._world, self._cluster(request)
        uid = cluster.uid
        changes: dict[str, Callable[[Any], None]] = {
            "name": lambda value: world.rename_cluster(uid, str(value)),
            "project": lambda value: world.move_cluster(uid, value),
            "state": lambda value: world.set_state(uid, str(value)),
            "health": lambda value: world.set_health(uid, str(value)),
            "tags": lambda value: world.set_tags(uid, [str(tag) for tag in value]),
            "oidc": lambda value: world.set_oidc(uid, oidc=bool(value)),
            "paused": lambda value: world.set_paused(uid, paused=bool(value)),
            "proxied": lambda value: setattr(cluster, "proxied", bool(value)),
            "admin_download": lambda value: world.set_admin_download(uid, allowed=bool(value)),
            "imported": lambda value: world.set_imported(uid, imported=bool(value), read_only=value == "read-only"),
            "token_cap": lambda value: world.set_token_cap(uid, _seconds(value)),
            "fill_delay": lambda value: setattr(cluster.kube, "fill_delay", float(value)),
            "termination_delay": lambda value: setattr(cluster.kube, "termination_delay", _seconds(value)),
        }
        for field, value in (await _body(request, changes)).items():
            changes[field](value)
        return _json(describe_cluster(cluster))

    async def _remove_cluster(self, request: web.Request) -> web.Response:
        self._world.remove_cluster(request.match_info["uid"])
        return _json({})

    async def _revoke_tokens(self, request: web.Request) -> web.Response:
        self._cluster(request).tokens.revoke_all()
        return _json({})

    async def _user_token(self, request: web.Request) -> web.Response:
        cluster = self._cluster(request)
        body = await _body(request, {"name", "groups", "claims"})
        if not cluster.oidc:
            raise ValueError(f"the cluster {cluster.name} has no OIDC configuration")
        groups = [str(one) for one in body["groups"]]
        token = cluster.tokens.for_user(str(body["name"]), groups, body.get("claims") or {})
        return _json({"token": token, "key": cluster.tokens.public_key}, 201)

    async def _renew_authority(self, request: web.Request) -> web.Response:
        self._cluster(request).renew_authority()
        return _json({})

    async def _shut_api_server(self, request: web.Request) -> web.Response:
        self._world.shut_api_server(request.match_info["uid"])
        return _json({})

    async def _open_api_server(self, request: web.Request) -> web.Response:
        await self._world.open_api_server(request.match_info["uid"])
        return _json({})

    # Objects of a cluster.

    async def _names(self, request: web.Request) -> web.Response:
        names: dict[str, list[str]] = {}
        for item in self._cluster(request).kube.list(resource_named(request.match_info["kind"])):
            namespace = item["metadata"].get("namespace", _CLUSTER_WIDE)
            names.setdefault(namespace, []).append(item["metadata"]["name"])
        return _json(names)

    async def _show_object(self, request: web.Request) -> web.Response:
        found = self._cluster(request).kube.get(*_place(request))
        if found is None:
            raise KeyError("object")
        return _json(_shown(found))

    async def _put_object(self, request: web.Request) -> web.Response:
        return _json(_shown(self._cluster(request).kube.put(*_place(request), await _body(request))))

    async def _patch_object(self, request: web.Request) -> web.Response:
        return _json(_shown(self._cluster(request).kube.patch(*_place(request), await _body(request))))

    async def _remove_object(self, request: web.Request) -> web.Response:
        if not self._cluster(request).kube.remove(*_place(request)):
            raise KeyError("object")
        return _json({})

    # Faults and requests.

    async def _list_faults(self, _: web.Request) -> web.Response:
        return _json([asdict(standing) for standing in self._faults.standing()])

    async def _add_fault(self, request: web.Request) -> web.Response:
        return _json({"id": self._faults.add(Fault(**await _body(request, _FAULT_FIELDS)))}, 201)

    async def _remove_fault(self, request: web.Request) -> web.Response:
        if not self._faults.remove(int(request.match_info["id"])):
            raise KeyError("fault")
        return _json({})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._faults.clear()
        return _json({})

    async def _list_requests(self, request: web.Request) -> web.Response:
        last = int(request.query.get("last", "100"))
        entries = list(self._requests.entries)
        return _json([asdict(entry) for entry in entries[len(entries) - min(last, len(entries)) :]])

    async def _count_requests(self, request: web.Request) -> web.Response:
        query: Mapping[str, Any] = request.query
        unknown = set(query) - {"target", "instance", "cluster", "method", "path_regex"}
        if unknown:
            raise ValueError(f"unknown parameters: {', '.join(sorted(unknown))}")
        return _json({"count": self._requests.count(**query)})

    async def _list_writes(self, request: web.Request) -> web.Response:
        number, writes = self._requests.writes_after(int(request.query.get("after", "0")))
        return _json({"number": number, "writes": [asdict(one) for one in writes]})

    async def _reset_requests(self, _: web.Request) -> web.Response:
        self._requests.reset()
        return _json({})


@web.middleware
async def _errors_as_json(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        return _json({"error": error.reason}, error.status)
    except KeyError as error:
        return _json({"error": f"not found: {error.args[0] if error.args else ''}"}, 404)
    except (ValueError, TypeError, re.error) as error:
        return _json({"error": str(error)}, 400)
    return response


def _json(document: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json")


async def _body(request: web.Request, allowed: Any = None) -> Json:
    body = orjson.loads(await request.read() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - answered as 400 like other bad values
    if allowed is not None and set(body) - set(allowed):
        raise ValueError(f"unknown fields: {', '.join(sorted(set(body) - set(allowed)))}")
    return body


def _place(request: web.Request) -> tuple[str, str | None, str]:
    info = request.match_info
    return info["kind"], None if info["namespace"] == _CLUSTER_WIDE else info["namespace"], info["name"]


def _shown(found: Json) -> Json:
    if found["kind"] == SECRETS.kind and "data" in found:
        return {**found, "data": dict.fromkeys(found["data"], "")}
    return found


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
