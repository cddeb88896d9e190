"""Access to one Kubernetes cluster: its kubeconfig, its five objects, its tokens."""

from palette_sync.kube.cluster import Checked, Granted, check, grant, probe_version, replace_legacy
from palette_sync.kube.errors import Blocked, KubeError, Unreachable
from palette_sync.kube.kubeconfig import AdminAccess, KubeconfigError, parse, parse_server_only
from palette_sync.kube.transport import Requests

__all__ = [
    "AdminAccess",
    "Blocked",
    "Checked",
    "Granted",
    "KubeError",
    "KubeconfigError",
    "Requests",
    "Unreachable",
    "check",
    "grant",
    "parse",
    "parse_server_only",
    "probe_version",
    "replace_legacy",
]
