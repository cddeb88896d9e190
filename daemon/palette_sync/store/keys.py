"""The names of the Redis keys. All keys of an instance share one hash tag, `{prefix:instance}`."""

from __future__ import annotations

from dataclasses import dataclass

# The type of each key of an instance, as the command TYPE names it, by the word after the hash tag.
TYPES = {
    **dict.fromkeys(("head", "clusters", "credentials", "work", "scopes", "issuers", "activity"), "hash"),
    **dict.fromkeys(("changes", "history", "control"), "stream"),
    **dict.fromkeys(("status", "lease", "epoch"), "string"),
}


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names under one prefix; docs/redis-contract.md says what each key holds."""

    prefix: str

    @property
    def instances(self) -> str:
        return f"{self.prefix}:instances"

    @property
    def owner(self) -> str:
        return f"{self.prefix}:owner"

    @property
    def members(self) -> str:
        return f"{self.prefix}:members"

    @property
    def names(self) -> str:
        return f"{self.prefix}:names"

    def of(self, instance: str, what: str) -> str:
        return f"{{{self.prefix}:{instance}}}:{what}"

    def head(self, instance: str) -> str:
        return self.of(instance, "head")

    def clusters(self, instance: str) -> str:
        return self.of(instance, "clusters")

    def credentials(self, instance: str) -> str:
        return self.of(instance, "credentials")

    def changes(self, instance: str) -> str:
        return self.of(instance, "changes")

    def history(self, instance: str) -> str:
        return self.of(instance, "history")

    def work(self, instance: str) -> str:
        return self.of(instance, "work")

    def scopes(self, instance: str) -> str:
        return self.of(instance, "scopes")

    def issuers(self, instance: str) -> str:
        return self.of(instance, "issuers")

    def activity(self, instance: str) -> str:
        return self.of(instance, "activity")

    def status(self, instance: str) -> str:
        return self.of(instance, "status")

    def lease(self, instance: str) -> str:
        return self.of(instance, "lease")

    def epoch(self, instance: str) -> str:
        return self.of(instance, "epoch")

    def control(self, instance: str) -> str:
        """The stream of requests to who leads an instance; for "", that of requests to every daemon."""
        return self.of(instance, "control") if instance else f"{self.prefix}:control"

    def request(self, instance: str, request_id: str) -> str:
        """Set for some minutes once a request is claimed, so that nobody carries it out twice."""
        return self.of(instance, f"request:{request_id}")
