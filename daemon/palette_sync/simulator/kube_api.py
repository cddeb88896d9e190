"""The API server of one simulated cluster: authentication, authorisation, resources and reviews."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from palette_sync.simulator import kube_errors as errors
from palette_sync.simulator import kube_rbac
from palette_sync.simulator import kube_resources as resources
from palette_sync.simulator.exchange import TEXT, Answer, Call, Json, answer_json
from palette_sync.simulator.kube_errors import KubeApiError
from palette_sync.simulator.kube_escalation import refuse_escalation
from palette_sync.simulator.kube_rbac import Attributes
from palette_sync.simulator.kube_resources import Resource, Target, parse_path
from palette_sync.simulator.kube_tokens import TokenAuthority, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.simulator.kube_store import KubeStore

ANONYMOUS = User("system:anonymous", frozenset({"system:unauthenticated"}))
MERGE_PATCH = "application/merge-patch+json"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_GRANTING = {"create", "update", "patch"}
_RETURNED_WHEN_DELETED = {"serviceaccounts", "pods", "namespaces"}
_PAGE_MARK = "sim:"


class KubeApi:
    """Serves the objects of a store. `/version` returns `version`; every TokenRequest reads `token_cap` (seconds).

    `foreign` returns the user of a token that is not the cluster's own, or None.
    """

    def __init__(
        self,
        store: KubeStore,
        tokens: TokenAuthority,
        *,
        version: str,
        token_cap: Callable[[], float | None],
        foreign: Callable[[str], User | None] = lambda _token: None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._version = version
        self._token_cap = token_cap
        self._foreign = foreign

    def answer(self, call: Call) -> Answer:
        try:
            user = self._authenticate(call)
            target = parse_path(call.path)
            if target is None:
                return self._answer_url(call, user)
            return self._answer_resource(call, user, target)
        except KubeApiError as error:
            return error.answer()

    def _authenticate(self, call: Call) -> User:
        if call.client_subject is not None:
            name, groups = call.client_subject
            return User(name, frozenset({*groups, "system:authenticated"}))
        scheme, _, token = call.headers.get("Authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        user = None
        if scheme.lower() == "bearer":
            user = self._tokens.authenticate(self._store, token.strip()) or self._foreign(token.strip())
        if user is None:
            raise errors.unauthorized()
        return user

    # Paths that do not name a resource.

    def _answer_url(self, call: Call, user: User) -> Answer:
        attributes = Attributes(call.method.lower(), url=call.path)
        if not kube_rbac.decide(self._store, user, attributes).allowed:
            why = f'User "{user.name}" cannot {attributes.verb} path "{call.path}"'
            raise errors.forbidden(None, "", f"forbidden: {why}")
        path = call.path.rstrip("/")
        if call.method != "GET":
            raise errors.method_not_allowed()
        if path == "/version":
            return answer_json(_version(self._version))
        if path in {"/healthz", "/livez", "/readyz"}:
            return Answer(200, b"ok", TEXT)
        discovered = _discovery(path)
        if discovered is None:
            return Answer(404, b"404 page not found\n", TEXT)
        return answer_json(discovered)

    # Resources.

    def _answer_resource(self, call: Call, user: User, target: Target) -> Answer:
        verb = _verb(call, target)
        attributes = Attributes(verb, target.group, target.plural, target.subresource, target.namespace, target.name)
        if not kube_rbac.decide(self._store, user, attributes).allowed:
            raise _denied(user, attributes, target)
        resource = target.resource
        if resource is None:
            if resources.known_group(target.group, target.version):
                raise errors.no_such_path()
            return Answer(404, b"404 page not found\n", TEXT)
        if target.subresource:
            return self._answer_subresource(call, target, resource)
        if resource.virtual:
            return self._answer_review(call, user, resource)
        if resource.namespaced and not target.namespace and verb != "list":
            raise errors.method_not_allowed()
        if verb in _GRANTING:
            standing = self._store.find(resource, target.namespace, target.name) if target.name else None
            wanted = {**(standing or {}), **_body(call)}
            refuse_escalation(self._store, user, target, wanted)
        return self._answer_object(call, target, resource, verb)

    def _answer_object(self, call: Call, target: Target, resource: Resource, verb: str) -> Answer:
        store, namespace, name = self._store, target.namespace, target.name
        dry_run = bool(call.query.get("dryRun"))
        if verb == "list":
            return answer_json(_list(store, resource, namespace, call))
        if verb == "get":
            return answer_json(store.read(resource, namespace, name))
        if verb == "create":
            return answer_json(store.create(resource, namespace, _body(call), dry_run=dry_run), 201)
        if verb == "update":
            return answer_json(store.replace(resource, namespace, name, _body(call), dry_run=dry_run))
        if verb == "patch":
            content_type = call.headers.get("Content-Type", "").split(";")[0].strip()
            if content_type != MERGE_PATCH:
                raise errors.unsupported_media_type(content_type)
            return answer_json(store.merge(resource, namespace, name, _body(call), dry_run=dry_run))
        if verb == "delete":
            return _deleted(store, resource, namespace, name, call, dry_run=dry_run)
        raise errors.method_not_allowed()

    def _answer_subresource(self, call: Call, target: Target, resource: Resource) -> Answer:
        found = self._store.read(resource, target.namespace, target.name)
        if resource is resources.SERVICE_ACCOUNTS and target.subresource == "token":
            if call.method != "POST":
                raise errors.method_not_allowed()
            body = _body(call)
            granted = self._tokens.grant(self._store, found, body, self._token_cap())
            return answer_json(granted, 201, headers=_shortened(body, granted))
        if resource is resources.PODS and target.subresource == "log" and call.method == "GET":
            return Answer(200, f"{target.name} started\n{target.name} is serving\n".encode(), TEXT)
        if target.subresource == "status" and call.method == "GET":
            return answer_json(found)
        raise errors.no_such_path()

    def _answer_review(self, call: Call, user: User, resource: Resource) -> Answer:
        if call.method != "POST":
            raise errors.method_not_allowed()
        body = _body(call)
        if resource is resources.SUBJECT_REVIEWS:
            info = {"username": user.name, "groups": sorted(user.groups)}
            return answer_json({**_review(resource, body), "status": {"userInfo": info}}, 201)
        verdict = kube_rbac.decide(self._store, user, _asked(body))
        status: Json = {"allowed": verdict.allowed}
        if verdict.reason:
            status["reason"] = verdict.reason
        return answer_json({**_review(resource, body), "spec": body.get("spec"), "status": status}, 201)


def _shortened(body: Json, granted: Json) -> dict[str, str]:
    """The warning of an API server that grants a shorter life than was asked for."""
    asked, seconds = (body.get("spec") or {}).get("expirationSeconds"), granted["spec"]["expirationSeconds"]
    if asked is None or asked <= seconds:
        return {}
    return {"Warning": f'299 - "requested expiration of {asked} seconds shortened to {seconds} seconds"'}


def _verb(call: Call, target: Target) -> str:
    if call.method in {"GET", "HEAD"}:
        if target.name:
            return "get"
        return "watch" if call.query.get("watch") in {"1", "true"} else "list"
    if call.method == "DELETE" and not target.name:
        return "deletecollection"
    return _VERBS.get(call.method, call.method.lower())


def _denied(user: User, wanted: Attributes, target: Target) -> KubeApiError:
    what = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {wanted.verb} resource "{what}" in API group "{wanted.group}" {where}'
    shown = target.resource or Resource(target.group, target.version, target.plural, target.plural)
    return errors.forbidden(shown, target.name, why)


def _body(call: Call) -> Json:
    try:
        body = call.json()
    except ValueError:
        raise errors.bad_request("the object provided is unrecognized: it is not JSON") from None
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: it is not a JSON object")
    return body


def _list(store: KubeStore, resource: Resource, namespace: str, call: Call) -> Json:
    items = store.list(resource, namespace)
    for parameter, pick in (("labelSelector", _label), ("fieldSelector", _field)):
        for term in filter(None, call.query.get(parameter, "").split(",")):
            items = [item for item in items if _matches(item, term, pick)]
    metadata: Json = {"resourceVersion": store.version}
    try:
        limit = int(call.query.get("limit") or 0)
        start = int(call.query.get("continue", "").removeprefix(_PAGE_MARK) or 0)
    except ValueError:
        raise errors.bad_request("limit or continue is not valid") from None
    if limit > 0:
        if len(items) > start + limit:
            metadata["continue"] = f"{_PAGE_MARK}{start + limit}"
            metadata["remainingItemCount"] = len(items) - start - limit
        items = items[start : start + limit]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": items,
    }


def _matches(item: Json, term: str, pick: Callable[[Json, str], str | None]) -> bool:
    """Match one term of a selector: `key=value`, `key==value`, `key!=value`, `key` or `!key`."""
    if "!=" in term:
        key, _, value = term.partition("!=")
        return pick(item, key.strip()) != value.strip()
    if "=" in term:
        key, _, value = term.partition("=")
        return pick(item, key.strip()) == value.lstrip("=").strip()
    if term.startswith("!"):
        return pick(item, term[1:].strip()) is None
    return pick(item, term.strip()) is not None


def _label(item: Json, key: str) -> str | None:
    value: str | None = (item["metadata"].get("labels") or {}).get(key)
    return value


def _field(item: Json, key: str) -> str | None:
    found: Any = item
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _deleted(store: KubeStore, resource: Resource, namespace: str, name: str, call: Call, *, dry_run: bool) -> Answer:
    options = _body(call) if call.body.strip() else {}
    old = store.delete(resource, namespace, name, options.get("preconditions"), dry_run=dry_run)
    if resource.plural in _RETURNED_WHEN_DELETED:
        return answer_json(old)
    details: Json = {"name": name, "kind": resource.plural, "uid": old["metadata"]["uid"]}
    if resource.group:
        details["group"] = resource.group
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return answer_json(status)


def _review(resource: Resource, body: Json) -> Json:
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": body.get("metadata") or {}}


def _asked(body: Json) -> Attributes:
    spec = body.get("spec") or {}
    asked: Json | None = spec.get("resourceAttributes")
    url: Json | None = spec.get("nonResourceAttributes")
    if asked is not None and url is None:
        words = ("verb", "group", "resource", "subresource", "namespace", "name")
        return Attributes(*(str(asked.get(word) or "") for word in words))
    if url is not None and asked is None:
        return Attributes(str(url.get("verb", "")), url=str(url.get("path", "")))
    why = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
    raise errors.invalid(resources.ACCESS_REVIEWS, "", "spec.resourceAttributes", why)


def _version(git_version: str) -> Json:
    major, minor, *_ = git_version.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": git_version,
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.25.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _discovery(path: str) -> Json | None:
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = sorted({(r.group, r.version) for r in resources.RESOURCES if r.group})
    if path == "/apis":
        versions = [(group, {"groupVersion": f"{group}/{version}", "version": version}) for group, version in groups]
        listed = [{"name": group, "versions": [v], "preferredVersion": v} for group, v in versions]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    parts = path.strip("/").split("/")
    group, version = ("", parts[1]) if parts[0] == "api" and len(parts) == 2 else (*parts[1:3], "", "")[:2]  # noqa: PLR2004
    if not resources.known_group(group, version):
        return None
    served = [r for r in resources.RESOURCES if (r.group, r.version) == (group, version)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}".lstrip("/"),
        "resources": [
            {
                "name": r.plural,
                "singularName": r.kind.lower(),
                "namespaced": r.namespaced,
                "kind": r.kind,
                "verbs": ["create"] if r.virtual else ["create", "delete", "get", "list", "patch", "update"],
            }
            for r in served
        ],
    }
