"""The API of one simulated Palette: routing, both forms of error documents, API keys, scopes, paging, rate limits.

The checks are in the order of the real service as far as it is known: rate limit, route (errors with a number as code),
credential, project header, parameters, permission.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from palette_sync.simulator import kubeconfig_files
from palette_sync.simulator import palette_documents as documents
from palette_sync.simulator.exchange import TEXT, Answer, Call, Json, answer_json
from palette_sync.simulator.issuer import answer_issuer, issuer_path
from palette_sync.simulator.palette_errors import PaletteError
from palette_sync.simulator.palette_paging import limit_of, page_of
from palette_sync.simulator.search_filter import InvalidFilterError, compile_filter, sort_clusters

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.simulator.cluster import SimCluster, SimInstance
    from palette_sync.simulator.faults import Target
    from palette_sync.simulator.inventory import SimProject
    from palette_sync.simulator.request_log import CredentialKind

_PROJECT_HEADER = "ProjectUid"


def _forbidden(permission: str) -> PaletteError:
    return PaletteError(403, "OperationForbidden", f"Operation not allowed: permission {permission} is required")


def _no_cluster(uid: str) -> PaletteError:
    return PaletteError(404, "ResourceNotFound", f"Resource spectrocluster '{uid}' not found")


class PaletteApi:
    """The site of one instance. It reads the world at every call, so changes take effect immediately."""

    def __init__(self, instance: SimInstance) -> None:
        self._instance = instance
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Call, str], Answer]]] = [
            (method, re.compile(pattern), handler) for method, pattern, handler in self._table()
        ]

    def _table(self) -> list[tuple[str, str, Callable[[Call, str], Answer]]]:
        board, one = "/v1/dashboard/spectroclusters", "/v1/spectroclusters/([^/]+)"
        return [
            ("GET", "/v1/users/info", lambda *_: answer_json(documents.user_info(self._instance))),
            ("GET", "/v1/users", self._users),
            ("GET", "/v1/permissions", lambda *_: answer_json(documents.permissions(self._instance))),
            ("GET", "/v1/apiKeys", lambda *_: answer_json(documents.api_keys(self._instance))),
            ("POST", "/v1/dashboard/projects", self._projects),
            ("GET", "/v1/dashboard/projects/metadata", self._projects_metadata),
            ("GET", "/v1/projects/([^/]+)", self._project),
            ("POST", "/v1/projects", lambda *_: _refuse(_forbidden("project.create"))),
            ("POST", f"{board}/search", self._search),
            ("GET", f"{board}/search/schema", lambda *_: answer_json(documents.search_schema())),
            ("GET", f"{board}/search/input", lambda c, _: answer_json(documents.search_input(self._visible(c)))),
            ("POST", f"{board}/metadata/search", self._metadata_search),
            ("GET", f"{board}/metadata/search/schema", lambda *_: answer_json(documents.search_schema())),
            ("GET", f"{board}/meta", self._meta),
            ("GET", f"{board}/([^/]+)", self._one(documents.cluster_overview)),
            ("GET", f"{board}/([^/]+)/overview", self._one(documents.cluster_overview)),
            ("GET", "/v1/spectroclusters/tags", lambda c, _: answer_json(documents.cluster_tags(self._visible(c)))),
            ("GET", one, self._one(documents.cluster_object)),
            ("GET", f"{one}/status", self._one(documents.cluster_status)),
            ("GET", f"{one}/oidc", self._oidc),
            ("GET", f"{one}/assets/adminKubeconfig", self._admin_kubeconfig),
            ("GET", f"{one}/assets/kubeconfig", self._kubeconfig),
            ("GET", f"{one}/assets/kubeconfigclient", self._kubeconfig),
        ]

    # The site of a listener.

    @property
    def instance_name(self) -> str:
        return self._instance.name

    @property
    def cluster_uid(self) -> str | None:
        return None

    def target_of(self, path: str) -> Target:
        return "issuer" if path.startswith("/v1/oidc/") else "palette"

    def credential_of(self, call: Call) -> CredentialKind:
        if "ApiKey" in call.headers:
            return "api-key"
        return "bearer" if "Authorization" in call.headers else "anonymous"

    def answer(self, call: Call) -> Answer:
        instance = self._instance
        if instance.rate_limits and not instance.limiter.admit(call.path):
            return Answer(429, b"Too Many Requests\n", TEXT)
        try:
            public = self._answer_public(call)
            if public is not None:
                return public
            handler, argument = self._route(call)
            self._check_credential(call)
            self._check_project(call)
            return handler(call, argument)
        except InvalidFilterError as error:
            return PaletteError(422, 422, f"validation failure: {error}").answer()
        except PaletteError as error:
            return error.answer()

    def _answer_public(self, call: Call) -> Answer | None:
        """Answer the paths that need no credential: health, the tenant's login page, the issuer; None for others."""
        if call.method != "GET":
            return None
        if call.path in {"/v1/health/ping", "/v1/health/ready"}:
            return answer_json({"msg": "pong" if call.path.endswith("ping") else "ready"})
        if call.path == "/v1/auth/org":
            return answer_json(documents.login(self._instance))
        if call.path.startswith(issuer_path(self._instance)):
            return answer_issuer(self._instance, call.path)
        return None

    def _route(self, call: Call) -> tuple[Callable[[Call, str], Answer], str]:
        allowed: list[str] = []
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(call.path)
            if match is None:
                continue
            if method == call.method:
                return handler, match.group(1) if pattern.groups else ""
            allowed.append(method)
        if allowed:
            listed = " ".join(sorted(set(allowed)))
            raise PaletteError(405, 405, f"method {call.method} is not allowed, but [{listed}] are")
        raise PaletteError(404, 404, f"path {call.path} was not found")

    def _check_credential(self, call: Call) -> None:
        key = call.headers.get("ApiKey")
        if key == self._instance.api_key and self._instance.key_active:
            return
        if key and self._instance.behaviour.bad_key == "not-found":
            raise PaletteError(404, "ResourceNotFound", f"Resource apiKey '{key}' not found")
        raise PaletteError(401, "UnAuthorizedAccess", "Provided credentials are invalid")

    def _check_project(self, call: Call) -> None:
        uid = call.headers.get(_PROJECT_HEADER)
        if not uid:
            return
        known = uid in self._instance.projects
        if self._instance.behaviour.bad_project == "forbidden" and not (known and self._instance.sees(uid)):
            raise _forbidden("project.get")
        if not known:
            raise PaletteError(404, "ProjectNotFoundInTenant", f"Project '{uid}' is not found in the tenant")
        if not self._instance.sees(uid):
            raise PaletteError(403, "ResourceAccessDenied", f"Access to project '{uid}' is denied")

    def _check_right(self, right: str) -> None:
        if right not in self._instance.key_rights:
            raise _forbidden(right)

    # Projects.

    def _seen_projects(self) -> list[SimProject]:
        self._check_right("project.list")
        found = [p for p in self._instance.projects.values() if self._instance.sees(p.uid)]
        return sorted(found, key=lambda p: (p.created_at, p.uid))

    def _projects(self, call: Call, _: str) -> Answer:
        body = _body(call)
        name = (body.get("filter") or {}).get("name") or {}
        found = [p for p in self._seen_projects() if _name_matches(name, p.name)]
        for entry in reversed(body.get("sort") or []):
            field, order = entry.get("field"), entry.get("order") or "asc"
            keys: dict[str, Callable[[SimProject], Any]] = {
                "name": lambda p: p.name,
                "creationTimestamp": lambda p: p.created_at,
                "lastModifiedTimestamp": lambda p: p.created_at,
            }
            if field not in keys:
                raise InvalidFilterError("sort.field should be one of [name creationTimestamp lastModifiedTimestamp]")
            found.sort(key=keys[field], reverse=order == "desc")
        items, meta = page_of(call, found, cap_silently=True, lie=self._instance.behaviour.listing_lie)
        rows = [documents.project_summary(self._instance, p) for p in items]
        return answer_json({"items": rows, "listmeta": meta})

    def _users(self, *_: object) -> Answer:
        """The list that Palette's SDK asks for to see whether a key belongs to a tenant admin."""
        if self._instance.key_permission != "tenant":
            raise _forbidden("user.list")
        return answer_json(documents.users(self._instance))

    def _projects_metadata(self, call: Call, _: str) -> Answer:
        name = call.query.get("name")
        found = [p for p in self._seen_projects() if name in {None, p.name}]
        return answer_json({"items": [{"metadata": {"name": p.name, "uid": p.uid}} for p in found]})

    def _project(self, _: Call, uid: str) -> Answer:
        self._check_right("project.get")
        found = self._instance.projects.get(uid)
        if found is None or not self._instance.sees(uid):
            raise PaletteError(404, "ResourceNotFound", f"Resource project '{uid}' not found")
        return answer_json(documents.project(found))

    # Clusters.

    def _visible(self, call: Call) -> list[SimCluster]:
        """Return the clusters in the scope of a call: its project's, or without project header all of the tenant."""
        self._check_right("cluster.list")
        uid = call.headers.get(_PROJECT_HEADER)
        virtual = "virtualCluster.list" in self._instance.key_rights
        clusters = [c for c in self._instance.clusters.values() if virtual or not c.virtual]
        if uid:
            return [c for c in clusters if c.project_uid == uid]
        if self._instance.key_permission == "tenant":
            return clusters
        if self._instance.behaviour.no_tenant_right == "empty":
            return []
        raise _forbidden("cluster.list")

    def _found(self, call: Call) -> list[SimCluster]:
        body = _body(call)
        matches = compile_filter(body.get("filter"))
        return sort_clusters([c for c in self._visible(call) if matches(c)], body.get("sort"))

    def _search(self, call: Call, _: str) -> Answer:
        limit_of(call, cap_silently=False)
        lie = self._instance.behaviour.listing_lie
        items, meta = page_of(call, self._found(call), cap_silently=False, lie=lie)
        return answer_json({"items": [documents.cluster_summary(c) for c in items], "listmeta": meta})

    def _metadata_search(self, call: Call, _: str) -> Answer:
        found = self._found(call)
        meta = documents.list_meta("", len(found), len(found), 0)
        return answer_json({"items": [documents.cluster_meta_summary(c) for c in found], "listmeta": meta})

    def _meta(self, call: Call, _: str) -> Answer:
        return answer_json([documents.cluster_meta(c) for c in self._visible(call) if not c.virtual])

    def _cluster(self, call: Call, uid: str) -> SimCluster:
        cluster = self._instance.clusters.get(uid)
        if cluster is None:
            raise _no_cluster(uid)
        self._check_right("virtualCluster.get" if cluster.virtual else "cluster.get")
        tenant_call = not call.headers.get(_PROJECT_HEADER)
        if (cluster.project_uid or "") != (call.headers.get(_PROJECT_HEADER) or ""):
            raise _forbidden("cluster.get")
        if tenant_call and self._instance.key_permission != "tenant":
            raise _forbidden("cluster.get")
        return cluster

    def _one(self, document: Callable[[SimCluster], Json]) -> Callable[[Call, str], Answer]:
        return lambda call, uid: answer_json(document(self._cluster(call, uid)))

    def _oidc(self, call: Call, uid: str) -> Answer:
        cluster = self._cluster(call, uid)
        if not cluster.oidc and self._instance.behaviour.absent_oidc == "not-found":
            raise PaletteError(404, "ResourceNotFound", "Resource oidc not found")
        ca = base64.b64encode(self._instance.ca_pem.encode()).decode()
        return answer_json(documents.oidc(cluster, ca))

    def _admin_kubeconfig(self, call: Call, uid: str) -> Answer:
        cluster = self._cluster(call, uid)
        self._check_right(documents.ADMIN_DOWNLOAD)
        if not cluster.admin_download:
            raise _forbidden(documents.admin_permission(self._instance))
        if not cluster.has_kubeconfig:
            raise PaletteError(404, "ResourceNotFound", f"Resource kubeconfig of '{uid}' not found")
        return _file(cluster, kubeconfig_files.admin_kubeconfig(cluster))

    def _kubeconfig(self, call: Call, uid: str) -> Answer:
        cluster = self._cluster(call, uid)
        if not cluster.has_kubeconfig:
            raise PaletteError(404, "ResourceNotFound", f"Resource kubeconfig of '{uid}' not found")
        frp = call.path.endswith("/kubeconfig") and call.query.get("frp", "true") == "true"
        return _file(cluster, kubeconfig_files.user_kubeconfig(cluster, frp=frp))


def _file(cluster: SimCluster, text: str | None) -> Answer:
    if text is None:
        raise PaletteError(404, "ResourceNotFound", f"Resource kubeconfig of '{cluster.uid}' not found")
    return kubeconfig_files.download(cluster, text)


def _refuse(error: PaletteError) -> Answer:
    return error.answer()


def _body(call: Call) -> Json:
    try:
        body = call.json()
    except ValueError:
        raise PaletteError(400, 400, 'parsing body body from "" failed') from None
    if body is None:
        return {}
    if not isinstance(body, dict):
        raise PaletteError(422, 601, "body in body must be of type object")
    return body


def _name_matches(wanted: Json, name: str) -> bool:
    fold = wanted.get("ignoreCase", True)
    have = name.casefold() if fold else name
    tests: dict[str, Callable[[str], bool]] = {
        "eq": lambda want: have == want,
        "ne": lambda want: have != want,
        "contains": lambda want: want in have,
        "beginsWith": have.startswith,
    }
    given = [(tests[key], str(value)) for key, value in wanted.items() if key in tests and value is not None]
    return all(test(want.casefold() if fold else want) for test, want in given)
