"""Errors of a cloud, by meaning. The texts are safe to publish: they hold no token, no header and no body."""

from __future__ import annotations

from palette_sync.core.reasons import Reason


class CloudError(Exception):
    """No token for a cluster. `reason` ends up in the cluster's record."""

    reason: Reason


class CredentialsUnavailable(CloudError):
    """The cloud gave no token: no credentials were found, or they were refused, or it did not answer."""

    reason = Reason.CLOUD_CREDENTIALS_UNAVAILABLE


class ServerRefused(CloudError):
    """The server is not known to belong to a cluster of the cloud, so no token is sent to it."""

    reason = Reason.CLOUD_SERVER_REFUSED
