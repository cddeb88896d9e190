"""What an error or a token that is left means, in words for records and people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from palette_sync import cloud, kube, oidc, palette
from palette_sync.core.documents import format_time
from palette_sync.core.fold import AccessFailed
from palette_sync.core.reasons import Reason

if TYPE_CHECKING:
    from palette_sync.core.due import Candidate
    from palette_sync.core.policy import InstancePolicy

ADMIN_PERMISSION = "cluster.adminKubeconfigDownload"


class OidcNotConfigured(Exception):
    """Palette names no issuer or no client for the cluster."""


class IssuerNotAllowed(Exception):
    """The configuration does not allow the issuer and client that Palette names for the cluster."""

    def __init__(self, issuer: str, client: str) -> None:
        super().__init__(issuer, client)
        self.issuer = issuer
        self.client = client


def explain(error: Exception, policy: InstancePolicy) -> AccessFailed | None:
    """Turn an error of a cluster, Palette or an issuer into a verdict; None for any other error."""
    match error:
        case palette.PaletteError():
            return _explain_palette(error)
        case OidcNotConfigured():
            return AccessFailed(Reason.OIDC_NOT_CONFIGURED, "Palette names no OIDC issuer and client for this cluster")
        case IssuerNotAllowed():
            return AccessFailed(
                Reason.ISSUER_NOT_ALLOWED,
                f"the issuer {error.issuer} with the client {error.client} is not allowed; to allow it, write below "
                f"[instances.{policy.instance}.oidc]: {policy.oidc.issuers.line(error.issuer)}",
                pending=True,
                withdrawn=True,
            )
        case oidc.IssuerError():
            return AccessFailed(Reason.ISSUER_UNAVAILABLE, str(error))
        case kube.KubeconfigError() | kube.KubeError() | cloud.CloudError():
            return AccessFailed(error.reason, str(error), withheld=isinstance(error, kube.ChainIncomplete))
        case TimeoutError():
            return AccessFailed(
                Reason.UNREACHABLE, f"the cluster did not answer within {policy.cluster_timeout.total_seconds():g} s"
            )
    return None


def _explain_palette(error: palette.PaletteError) -> AccessFailed:
    match error:
        case palette.NotFound():
            return AccessFailed(
                Reason.KUBECONFIG_NOT_READY, "Palette has no kubeconfig for this cluster yet", pending=True
            )
        case palette.NotPermitted():
            return AccessFailed(
                Reason.KUBECONFIG_FORBIDDEN,
                f"Palette refuses the kubeconfig; the API key's user needs {ADMIN_PERMISSION} "
                "(for OIDC clusters cluster.get) in this project",
            )
        case palette.ProjectUnavailable():
            return AccessFailed(Reason.PROJECT_UNAVAILABLE, str(error))
        case palette.FileTooLarge():
            return AccessFailed(Reason.KUBECONFIG_TOO_LARGE, str(error))
    return AccessFailed(Reason.PALETTE_UNAVAILABLE, str(error))


def objects_stay(candidate: Candidate, policy: InstancePolicy, why: str) -> str:
    """Say for people that a cluster could not be released, how long its token lives, and what to do."""
    again = f"palette-sync release --instance {candidate.key.instance} --cluster {candidate.key.uid} --yes"
    return f"{token_lives(candidate, policy, why)}; or run `{again}` once it answers, which removes all objects"


def token_lives(candidate: Candidate, policy: InstancePolicy, why: str) -> str:
    """Say for people that a token of a cluster could not be revoked, and how long it lives."""
    credential, memory, desired = candidate.credential, candidate.memory, policy.desired
    if credential is None:
        until = "until it expires"  # what Redis held of it was not trusted
    else:
        until = "for ever" if credential.expires_at is None else f"until {format_time(credential.expires_at)}"
    names = ", ".join([memory.generation or desired.secret, *(secret.name for secret in memory.retired)])
    return (
        f"its service-account token lives on {until}, because it could not be revoked: {why}; "
        f"delete Secret {names} in namespace {desired.namespace} of the cluster"
    )
