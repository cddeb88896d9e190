"""Which OIDC issuers and clients a cluster may name. Pure.

Backstage sends the user's ID token to a cluster whose record names an issuer. Whoever configures OIDC for one cluster
in Palette must not choose where users log in, so the operator allows issuers by name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_ISSUER = 512
LONGEST_CLIENT = 256
_HTTPS_PORT = ":443"
# Narrower than a URL: no user, query or fragment (OpenID Connect Discovery 1.0, section 3), and nothing that two
# parsers could read differently. Names outside of ASCII come as punycode.
_ISSUER = re.compile(r"https://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(/[A-Za-z0-9/._~%+=@:,-]*)?")
_GLOB = re.compile(r"https://([A-Za-z0-9.*?-]+|\[[0-9A-Fa-f:.]+\])(:[0-9*]{1,5})?(/[A-Za-z0-9/._~%+=@:,*?-]*)?")
_ANY = ("*",)
_LONGEST_LINE = 400  # characters of what is allowed already
_DOTS = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class IssuerRule:
    """Globs of an issuer and of its clients. The parts of the issuer match separately, so `*` never leaves the host."""

    issuer: str
    clients: tuple[str, ...] = _ANY


@dataclass(frozen=True, slots=True)
class IssuerPolicy:
    """The issuers that one instance allows. Without rules: every issuer on one of `own_hosts`, which are Palette's."""

    own_hosts: frozenset[str]
    rules: tuple[IssuerRule, ...] = ()

    def allows(self, issuer: str, client: str) -> bool:
        return self._matches(issuer, client)

    def allows_keys(self, url: str, *, issuer: str) -> bool:
        """Whether an allowed issuer may keep its keys at `url`: on its own host, or where a rule would allow one."""
        parts, own = _parts(url), _parts(issuer)
        return parts is not None and own is not None and (parts[:2] == own[:2] or self._matches(url, None))

    def line(self, issuer: str) -> str:
        """The line of the configuration that allows the issuer, and what is allowed already."""
        present = [_toml_of(rule) for rule in self.rules]
        present = present or [json.dumps(f"https://{host}:*/*") for host in sorted(self.own_hosts)]
        if sum(map(len, present)) > _LONGEST_LINE:
            present = ["..."]
        return f"issuers = [{', '.join((*present, json.dumps(issuer)))}]"

    def _matches(self, url: str, client: str | None) -> bool:
        parts = _parts(url)
        if parts is None:
            return False
        if not self.rules:
            return parts[0] in self.own_hosts
        return any(
            _match(rule.issuer, parts) and (client is None or any(fnmatchcase(client, one) for one in rule.clients))
            for rule in self.rules
        )


def issuer_problem(issuer: str, client: str) -> str | None:
    """Explain why an issuer and a client cannot be used at all; None if they can. Foreign text is not repeated."""
    if len(issuer) > LONGEST_ISSUER or _parts(issuer) is None:
        return "the issuer is not a plain https address"
    if len(client) > LONGEST_CLIENT or not client.isascii() or not client.isprintable():
        return "the client id is not a plain word"
    return None


def issuer_glob_problem(glob: str) -> str | None:
    """Explain why a configured glob can match no issuer; None if it can."""
    if not _GLOB.fullmatch(glob):
        return 'is not a glob of issuers; write for example "https://login.example.com/*"'
    return None


def own_hosts(urls: Iterable[str]) -> frozenset[str]:
    """The hosts of Palette's API and console, without ports."""
    return frozenset(parts[0] for url in urls if (parts := _parts(url)) is not None)


def _toml_of(rule: IssuerRule) -> str:
    if rule.clients == _ANY:
        return json.dumps(rule.issuer)
    return f"{{ issuer = {json.dumps(rule.issuer)}, clients = {json.dumps(list(rule.clients))} }}"


def _parts(url: str) -> tuple[str, str, str] | None:
    """Host (lower case), port and path; None for anything but a plain https address."""
    found = _ISSUER.fullmatch(url)
    if found is None:
        return None
    host, port, path = found.groups()
    if any(segment.replace("%2e", ".").replace("%2E", ".") in _DOTS for segment in (path or "").split("/")):
        return None
    return host.lower(), port or _HTTPS_PORT, path or "/"


def _match(glob: str, parts: tuple[str, str, str]) -> bool:
    found = _GLOB.fullmatch(glob)
    if found is None:
        return False
    host, port, path = found.groups()
    wanted = (host.lower(), port or _HTTPS_PORT, path or "/")
    # Brackets of an IPv6 address are no character class of a glob.
    return all(fnmatchcase(part.strip("[]"), one.strip("[]")) for part, one in zip(parts, wanted, strict=True))
