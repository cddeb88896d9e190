"""One Kubernetes cluster: read its kubeconfig, its five objects and its tokens, and write what was planned."""

from palette_sync.kube.errors import (
    AccessDenied,
    AdminCredentialRefused,
    Blocked,
    ChainIncomplete,
    CloudIdentityRefused,
    Conflict,
    KubeError,
    NamespaceTerminating,
    NotFound,
    TokenRejected,
    Unauthorized,
    Unreachable,
    WritesFenced,
)
from palette_sync.kube.kubeconfig import (
    AdminAccess,
    BearerToken,
    CloudTokenNeeded,
    Credential,
    KubeconfigError,
    parse,
    parse_server_only,
)
from palette_sync.kube.labelled import find_labelled, find_others
from palette_sync.kube.observe import observe
from palette_sync.kube.probe import probe_version
from palette_sync.kube.tokens import Patience, bound_to, kubernetes_version, prove, read_secret_token, request_token
from palette_sync.kube.transport import KubeApi, Requests
from palette_sync.kube.trust import as_reader
from palette_sync.kube.write import rehearse, write

__all__ = [
    "AccessDenied",
    "AdminAccess",
    "AdminCredentialRefused",
    "BearerToken",
    "Blocked",
    "ChainIncomplete",
    "CloudIdentityRefused",
    "CloudTokenNeeded",
    "Conflict",
    "Credential",
    "KubeApi",
    "KubeError",
    "KubeconfigError",
    "NamespaceTerminating",
    "NotFound",
    "Patience",
    "Requests",
    "TokenRejected",
    "Unauthorized",
    "Unreachable",
    "WritesFenced",
    "as_reader",
    "bound_to",
    "find_labelled",
    "find_others",
    "kubernetes_version",
    "observe",
    "parse",
    "parse_server_only",
    "probe_version",
    "prove",
    "read_secret_token",
    "rehearse",
    "request_token",
    "write",
]
