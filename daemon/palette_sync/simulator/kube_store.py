"""The objects of one simulated cluster: uids, resource versions, preconditions and controllers.

There are two interfaces. `create`, `replace`, `merge` and `delete` serve the API and raise its errors
(`kube_errors.KubeApiError`). `put`, `patch` and `remove` are for tests: they skip the API's checks, so that a test can
create any drift.

Stored documents are replaced, never modified, because all clusters share the default objects. Callers must not modify
what `read` and `list` return. The controllers (which fill token Secrets and end namespaces) have no timer: what is due
happens before the next access.
"""

from __future__ import annotations

import base64
import copy
import heapq
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from palette_sync.simulator import kube_errors as errors
from palette_sync.simulator.kube_resources import NAMESPACES, SECRETS, SERVICE_ACCOUNTS, Resource, resource_named
from palette_sync.simulator.kube_validation import (
    SERVICE_ACCOUNT_ANNOTATION,
    SERVICE_ACCOUNT_TOKEN,
    check_content,
    check_identity,
    check_name,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from palette_sync.simulator.exchange import Json

SERVICE_ACCOUNT_UID = "kubernetes.io/service-account.uid"
FIRST_VERSION = 1000
_SERVER_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp")
_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def timestamp(when: float) -> str:
    """Format Unix seconds as Kubernetes does: RFC 3339, whole seconds, `Z`."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class KubeStore:
    """The objects of one cluster. `seed` returns a new cluster's objects of a kind, on first access to that kind.

    The token controller fills a Secret after `fill_delay` seconds, with the token that `make_token` signs. A deleted
    namespace stays Terminating for `termination_delay` seconds (None = until `finish_termination`).
    """

    def __init__(
        self,
        *,
        seed: Callable[[Resource], list[Json]],
        clock: Callable[[], float],
        generator: random.Random,
        ca_pem: Callable[[], str],
        make_token: Callable[[Json, Json], str],
    ) -> None:
        self.fill_delay = 0.05
        self.termination_delay: float | None = 0.05
        self.writes = 0
        self._seed = seed
        self._clock = clock
        self._generator = generator
        self._ca_pem = ca_pem
        self._make_token = make_token
        self._objects: dict[Resource, dict[tuple[str, str], Json]] = {}
        self._version = FIRST_VERSION
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = 0

    # For tests: kinds are given by name, copies are returned, nothing is checked.

    def get(self, kind: str, namespace: str | None, name: str) -> Json | None:
        """Return a copy of an object, or None. `kind` is a kind or a plural."""
        found = self.find(resource_named(kind), namespace or "", name)
        return copy.deepcopy(found)

    def names(self, kind: str, namespace: str | None = None) -> list[str]:
        return [item["metadata"]["name"] for item in self.list(resource_named(kind), namespace or "")]

    def put(self, kind: str, namespace: str | None, name: str, body: Json) -> Json:
        """Create or replace an object without the API's checks. Returns a copy of the stored object.

        If `body` lacks uid or creationTimestamp, the object keeps its own or gets new ones.
        """
        resource = resource_named(kind)
        old = self.find(resource, namespace or "", name)
        new = copy.deepcopy(body)
        new.setdefault("kind", resource.kind)
        new.setdefault("apiVersion", resource.api_version)
        metadata = new.setdefault("metadata", {})
        metadata["name"] = name
        if resource.namespaced:
            metadata["namespace"] = namespace or "default"
        known = old["metadata"] if old is not None else {}
        metadata.setdefault("uid", known.get("uid") or self._new_uid())
        metadata.setdefault("creationTimestamp", known.get("creationTimestamp") or timestamp(self._clock()))
        return copy.deepcopy(self._keep(resource, new))

    def patch(self, kind: str, namespace: str | None, name: str, change: Json) -> Json:
        """Apply a JSON merge patch without the API's checks. Raises KeyError if the object does not exist."""
        old = self.get(kind, namespace, name)
        if old is None:
            raise KeyError(f"{kind} {name}")
        return self.put(kind, namespace, name, merge_patch(old, change))

    def remove(self, kind: str, namespace: str | None, name: str) -> bool:
        """Remove an object and its dependents immediately; False if it does not exist."""
        resource = resource_named(kind)
        if self.find(resource, namespace or "", name) is None:
            return False
        if resource is NAMESPACES:
            self.finish_termination(name)
        else:
            self._drop(resource, namespace or "", name)
        return True

    def finish_termination(self, name: str) -> None:
        """Remove a namespace with all its objects immediately."""
        for resource in list(self._objects):
            for key in [key for key in self._kind(resource) if key[0] == name and resource.namespaced]:
                del self._kind(resource)[key]
        self._kind(NAMESPACES).pop(("", name), None)
        self._version += 1

    # For the API.

    @property
    def version(self) -> str:
        return str(self._version)

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        self._settle()
        return self._kind(resource).get((namespace if resource.namespaced else "", name))

    def read(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.find(resource, namespace, name)
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def list(self, resource: Resource, namespace: str = "") -> list[Json]:
        """Return the objects of a kind in a namespace (empty = all), ordered by namespace and name."""
        self._settle()
        kind = self._kind(resource)
        return [kind[key] for key in sorted(kind) if namespace in {"", key[0]} or not resource.namespaced]

    def create(self, resource: Resource, namespace: str, body: Json, *, dry_run: bool = False) -> Json:
        new = copy.deepcopy(body)
        metadata = new.setdefault("metadata", {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{self._generator.getrandbits(25):05x}"[:63]
        name = str(metadata.get("name") or "")
        check_identity(resource, new, namespace, name)
        check_name(resource, name)
        self._check_namespace(resource, namespace, name)
        if metadata.pop("resourceVersion", None):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        check_content(resource, name, new, None)
        if self.find(resource, namespace, name) is not None:
            raise errors.already_exists(resource, name)
        metadata.update(uid=self._new_uid(), creationTimestamp=timestamp(self._clock()))
        metadata.pop("deletionTimestamp", None)
        if resource is NAMESPACES:
            new["spec"] = {"finalizers": ["kubernetes"]}
            new["status"] = {"phase": "Active"}
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": name}
        return new if dry_run else self._keep(resource, new)

    def replace(self, resource: Resource, namespace: str, name: str, body: Json, *, dry_run: bool = False) -> Json:
        old = self.read(resource, namespace, name)
        new = copy.deepcopy(body)
        check_identity(resource, new, namespace, name)
        metadata, known = new["metadata"], old["metadata"]
        uid, version = metadata.get("uid"), metadata.get("resourceVersion")
        if uid and uid != known["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {known['uid']}"
            raise errors.conflict(resource, name, why)
        if version and version != known["resourceVersion"]:
            raise errors.conflict(resource, name, _MODIFIED)
        check_content(resource, name, new, old)
        for field in _SERVER_FIELDS:
            metadata.pop(field, None)
            if field in known:
                metadata[field] = known[field]
        metadata.pop("managedFields", None)
        metadata["resourceVersion"] = known["resourceVersion"]
        if resource is NAMESPACES:
            new.update(spec=old["spec"], status=old["status"])
        if new == old:
            return old
        return new if dry_run else self._keep(resource, new)

    def merge(self, resource: Resource, namespace: str, name: str, change: Json, *, dry_run: bool = False) -> Json:
        """Apply a JSON merge patch (RFC 7396)."""
        old = self.read(resource, namespace, name)
        return self.replace(resource, namespace, name, merge_patch(old, change), dry_run=dry_run)

    def delete(
        self, resource: Resource, namespace: str, name: str, preconditions: Json | None = None, *, dry_run: bool = False
    ) -> Json:
        """Delete an object and return its last state. A namespace is returned as Terminating."""
        old = self.read(resource, namespace, name)
        metadata = old["metadata"]
        for field, word in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            want = (preconditions or {}).get(field)
            if want and want != metadata[field]:
                why = f"{word} in precondition: {want}, {word} in object meta: {metadata[field]}"
                raise errors.conflict(resource, name, f"Precondition failed: {why}")
        if dry_run:
            return old
        if resource is NAMESPACES:
            return self._terminate(old)
        self._drop(resource, namespace, name)
        return old

    # Internals.

    def _kind(self, resource: Resource) -> dict[tuple[str, str], Json]:
        kind = self._objects.get(resource)
        if kind is None:
            seeded = self._seed(resource)
            kind = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in seeded}
            self._objects[resource] = kind
        return kind

    def _new_uid(self) -> str:
        return str(uuid.UUID(int=self._generator.getrandbits(128), version=4))

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if not resource.namespaced:
            return
        found = self.find(NAMESPACES, "", namespace)
        if found is None:
            raise errors.not_found(NAMESPACES, namespace)
        if found["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = errors.forbidden(resource, name, why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details["causes"] = [cause]
            raise error

    def _keep(self, resource: Resource, new: Json) -> Json:
        self._version += 1
        self.writes += 1
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self._version)
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        self._kind(resource)[namespace, name] = new
        if resource is SECRETS and new.get("type") == SERVICE_ACCOUNT_TOKEN and "token" not in (new.get("data") or {}):
            self._later(self.fill_delay, lambda: self._fill(namespace, name))
        return new

    def _drop(self, resource: Resource, namespace: str, name: str) -> None:
        self._kind(resource).pop((namespace if resource.namespaced else "", name), None)
        self._version += 1
        self.writes += 1
        if resource is SERVICE_ACCOUNTS:
            secrets = self._kind(SECRETS)
            for key, secret in list(secrets.items()):
                owner = (secret["metadata"].get("annotations") or {}).get(SERVICE_ACCOUNT_ANNOTATION)
                if key[0] == namespace and secret.get("type") == SERVICE_ACCOUNT_TOKEN and owner == name:
                    del secrets[key]

    def _terminate(self, old: Json) -> Json:
        if old["metadata"].get("deletionTimestamp"):
            return old
        change = {"metadata": {"deletionTimestamp": timestamp(self._clock())}, "status": {"phase": "Terminating"}}
        new = self._keep(NAMESPACES, merge_patch(old, change))
        name, uid = old["metadata"]["name"], old["metadata"]["uid"]
        if self.termination_delay is not None:
            self._later(self.termination_delay, lambda: self._end_namespace(name, uid))
        return new

    def _end_namespace(self, name: str, uid: str) -> None:
        found = self._kind(NAMESPACES).get(("", name))
        if found is not None and found["metadata"]["uid"] == uid:
            self.finish_termination(name)

    def _fill(self, namespace: str, name: str) -> None:
        """Do the token controller's work: fill a token Secret, or delete it if its service account is missing."""
        secret = self._kind(SECRETS).get((namespace, name))
        if secret is None or "token" in (secret.get("data") or {}):
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = self._kind(SERVICE_ACCOUNTS).get((namespace, annotations.get(SERVICE_ACCOUNT_ANNOTATION, "")))
        if account is None:
            self._drop(SECRETS, namespace, name)
            return
        texts = {"token": self._make_token(account, secret), "ca.crt": self._ca_pem(), "namespace": namespace}
        data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        uid = account["metadata"]["uid"]
        change = {"metadata": {"annotations": {SERVICE_ACCOUNT_UID: uid}}, "data": data}
        self._keep(SECRETS, merge_patch(secret, change))

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        self._ticket += 1
        heapq.heappush(self._due, (self._clock() + delay, self._ticket, action))

    def _settle(self) -> None:
        while self._due and self._due[0][0] <= self._clock():
            heapq.heappop(self._due)[2]()


def merge_patch(old: Any, change: Any) -> Any:
    """Return `old` with a JSON merge patch (RFC 7396) applied. Neither argument is modified."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged
