"""Read a kubeconfig as untrusted input: nothing in it is executed, opened or followed (invariant 10,
docs/architecture.md).

Only the current context's cluster is read (and its user, if a credential is needed). `exec`, `auth-provider`, file
paths and servers without https are refused by name.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TypeGuard

from palette_sync.core.cloud import NEEDS, TITLES, CloudCluster, cluster_at, recognise
from palette_sync.core.model import LARGEST_CA, Secret, Server, ca_data_of
from palette_sync.core.reasons import Reason
from palette_sync.kube.kubeconfig_yaml import YamlRefused, read_yaml
from palette_sync.tls import NotACertificate, trusting

LARGEST = 128 * 1024
# A block ends at five dashes: a search beyond them would take minutes on a file that only has BEGIN lines.
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s[^-]*(?:-(?!----)[^-]*)*-----END \1-----")
_TRUE = frozenset({"true", "yes", "on", "y"})
_FALSE = frozenset({"", "false", "no", "off", "n"})
_HOST_NAME = re.compile(r"[A-Za-z0-9._:-]{1,253}")
LONGEST_URL = 2048
LONGEST_TOKEN = 16 * 1024


class KubeconfigError(Exception):
    """The kubeconfig is not used. The text names keys, never values."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class CloudTokenNeeded(KubeconfigError):
    """The user's credential is a token of a cloud, for which the file asks to run a program that is known."""

    def __init__(self, server: Server, cluster: CloudCluster) -> None:
        super().__init__(
            NEEDS[cluster.cloud],
            f"the kubeconfig asks to run a program for a token of {TITLES[cluster.cloud]}; palette-sync never runs one",
        )
        self.server = server
        self.cluster = cluster


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate and its key, as PEM."""

    certificate: str
    key: Secret


@dataclass(frozen=True, slots=True)
class BearerToken:
    token: Secret


@dataclass(frozen=True, slots=True)
class CertificateAndToken:
    """Both, sent together as kubectl does. API servers look at the certificate first, so a stale token does no harm."""

    certificate: ClientCertificate
    token: BearerToken


Credential = ClientCertificate | BearerToken | CertificateAndToken


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """What an admin kubeconfig grants. Dropped from memory after the cluster's work.

    `cloud` is the cluster in its cloud, where the server's address or the file's names show it. `from_cloud`: the
    credential is a token that the cloud gave to palette-sync, not one of the file.
    """

    server: Server
    credential: Credential = field(repr=False)
    cloud: CloudCluster | None = None
    from_cloud: bool = False


def parse(text: Secret, *, ca_pem: str | None = None) -> AdminAccess:
    """Read server and credential of the current context. `ca_pem`: the CA that the operator gives to this cluster.

    Raises KubeconfigError; CloudTokenNeeded where a known program would fetch a token of a cloud.
    """
    document = _document(text)
    context = _current_context(document)
    entry = _text(context, "cluster") or ""
    server = _server(_named(document, "clusters", "cluster", entry), ca_pem)
    user = _named(document, "users", "user", _text(context, "user"))
    if (cluster := _authenticator(user, entry)) is not None:
        raise CloudTokenNeeded(server, cluster)
    return AdminAccess(server, _credential(user), cluster_at(server, entry))


def parse_server_only(text: Secret, *, ca_pem: str | None = None) -> Server:
    """Read the server of the current context; `users` is not looked at. Raises KubeconfigError."""
    document = _document(text)
    context = _current_context(document)
    return _server(_named(document, "clusters", "cluster", _text(context, "cluster")), ca_pem)


def _document(text: Secret) -> dict[str, object]:
    raw = text.reveal()
    if len(raw) > LARGEST:
        raise KubeconfigError(Reason.KUBECONFIG_TOO_LARGE, f"the kubeconfig is larger than {LARGEST} bytes")
    if re.match(r"\s*<[!a-zA-Z]", raw):
        raise _malformed("in place of a kubeconfig came a web page")
    try:
        root = read_yaml(raw)
    except YamlRefused as error:
        raise _malformed(f"the kubeconfig {error}") from None
    if not isinstance(root, dict):
        raise _malformed("the kubeconfig is not a mapping")
    return root


def _malformed(message: str) -> KubeconfigError:
    return KubeconfigError(Reason.KUBECONFIG_MALFORMED, message)


def _current_context(document: dict[str, object]) -> dict[str, object]:
    name = _text(document, "current-context")
    if name is None:
        raise KubeconfigError(Reason.NO_CURRENT_CONTEXT, "the kubeconfig names no current-context")
    return _named(document, "contexts", "context", name)


def _named(document: dict[str, object], listing: str, kind: str, name: str | None) -> dict[str, object]:
    entries = document.get(listing)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _malformed(f"the kubeconfig's {listing} are not a list of mappings")
    named = [entry for entry in entries if _is_named(entry, name)] if name else []
    if len(named) > 1:
        raise _malformed(f"the kubeconfig has two {listing} of the same name")
    found = named[0].get(kind) if named else None
    if isinstance(found, dict):
        return found
    raise _malformed(f"the kubeconfig's current context has no {kind}")


def _is_named(entry: object, name: str) -> TypeGuard[dict[str, object]]:
    return isinstance(entry, dict) and entry.get("name") == name


def _text(section: dict[str, object], key: str) -> str | None:
    """A text; None if it is null, empty or absent. Anything else is refused, because it must not pass for absent."""
    value = section.get(key)
    if value is not None and not isinstance(value, str):
        raise _malformed(f"the kubeconfig's {key} is not a text")
    return value or None


def _flag(section: dict[str, object], key: str) -> bool:
    value = (_text(section, key) or "").lower()
    if value not in _TRUE | _FALSE:
        raise _malformed(f"the kubeconfig's {key} is neither true nor false")
    return value in _TRUE


def _server(cluster: dict[str, object], ca_pem: str | None) -> Server:
    url = _text(cluster, "server") or ""
    if (
        len(url) > LONGEST_URL
        or not url.isprintable()
        or not re.fullmatch(r"(?i:https)://[^\s/?#@]+(/[^\s?#@]*)?", url)
    ):
        raise KubeconfigError(Reason.NOT_HTTPS, "the kubeconfig's server is not a plain https address")
    url = "https" + url[len("https") :]
    if _text(cluster, "certificate-authority"):
        raise KubeconfigError(
            Reason.FILE_PATH_REFUSED, "the kubeconfig names a certificate-authority file; only inline data is read"
        )
    if _text(cluster, "proxy-url"):
        raise KubeconfigError(Reason.PROXY_REFUSED, "the kubeconfig names a proxy-url, which is never used")
    tls_server_name = _text(cluster, "tls-server-name")
    if tls_server_name is not None and not _HOST_NAME.fullmatch(tls_server_name):
        raise _malformed("the kubeconfig's tls-server-name is not a host name")
    data, insecure = _text(cluster, "certificate-authority-data"), _flag(cluster, "insecure-skip-tls-verify")
    if ca_pem is not None:
        return Server(url.rstrip("/"), ca_data_of(ca_pem), tls_server_name)
    if insecure:
        raise KubeconfigError(
            Reason.INSECURE_TLS,
            "the kubeconfig asks to skip TLS verification, which is never done; "
            "give the cluster a CA by a rule in [defaults.trust]",
        )
    if data is None:
        return Server(url.rstrip("/"), None, tls_server_name)
    pem = _loadable(_pem(data, "CERTIFICATE", Reason.BAD_CA, "certificate-authority-data"))
    if len(pem) > LARGEST_CA:
        raise KubeconfigError(
            Reason.BAD_CA, f"the kubeconfig's certificate-authority-data is larger than {LARGEST_CA} bytes"
        )
    return Server(url.rstrip("/"), ca_data_of(pem), tls_server_name)


def _loadable(pem: str) -> str:
    """A bundle without the certificates that do not load, as Go reads it. It is unchanged where none of them loads."""
    blocks = [found.group(0) for found in _PEM.finditer(pem)]
    good = [block for block in blocks if _loads(block)] if len(blocks) > 1 else []
    return "\n".join(good) + "\n" if good else pem


def _loads(block: str) -> bool:
    try:
        trusting(block)
    except NotACertificate:
        return False
    return True


def _credential(user: dict[str, object]) -> Credential:
    for key, reason in (("exec", Reason.EXEC_REFUSED), ("auth-provider", Reason.AUTH_PROVIDER_REFUSED)):
        if user.get(key) not in (None, ""):
            raise KubeconfigError(reason, f"the kubeconfig's user asks to run {key}; palette-sync never runs a program")
    for key in ("client-certificate", "client-key", "tokenFile"):
        if _text(user, key):
            raise KubeconfigError(
                Reason.FILE_PATH_REFUSED, f"the kubeconfig's user names a file in {key}; only inline data is read"
            )
    token, certificate = _bearer_token(user), _client_certificate(user)
    if token is not None and certificate is not None:
        return CertificateAndToken(certificate, token)
    found = token or certificate
    if found is None:
        raise KubeconfigError(
            Reason.NO_CREDENTIAL, "the kubeconfig's user has neither a token nor a client certificate with key"
        )
    return found


def _authenticator(user: dict[str, object], entry: str) -> CloudCluster | None:
    """The cluster that an `exec` section means, if its program is known."""
    section = user.get("exec")
    if not isinstance(section, dict):
        return None
    listed = section.get("args")
    args = [one for one in listed if isinstance(one, str)] if isinstance(listed, list) else []
    return recognise(_text(section, "command") or "", args, entry)


def _bearer_token(user: dict[str, object]) -> BearerToken | None:
    token = _text(user, "token")
    if token is None:
        return None
    if len(token) > LONGEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise KubeconfigError(Reason.BAD_CREDENTIAL, "the kubeconfig's token is too long, or no header can carry it")
    return BearerToken(Secret(token))


def _client_certificate(user: dict[str, object]) -> ClientCertificate | None:
    certificate, key_data = _text(user, "client-certificate-data"), _text(user, "client-key-data")
    if certificate is None or key_data is None:
        return None
    return ClientCertificate(
        _pem(certificate, "CERTIFICATE", Reason.BAD_CREDENTIAL, "client-certificate-data"),
        Secret(_pem(key_data, "PRIVATE KEY", Reason.BAD_CREDENTIAL, "client-key-data")),
    )


def _pem(data: str, label: str, reason: Reason, key: str) -> str:
    """Decode base64 and keep PEM blocks of one label only (an EC key comes with parameters, a CA may have text)."""
    try:
        text = base64.b64decode("".join(data.split()), validate=True).decode("ascii", errors="ignore")
    except (binascii.Error, ValueError):
        raise KubeconfigError(reason, f"the kubeconfig's {key} is not valid base64") from None
    blocks = [match.group(0) for match in _PEM.finditer(text) if match.group(1).endswith(label)]
    if not blocks:
        raise KubeconfigError(reason, f"the kubeconfig's {key} holds no PEM block of a {label.lower()}")
    return "\n".join(blocks) + "\n"
