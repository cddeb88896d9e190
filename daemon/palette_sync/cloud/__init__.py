"""Tokens of AWS, Google Cloud and Azure for API servers, from the credentials that the daemon itself finds.

A token is used as the credential of an admin kubeconfig is, and dropped after the work on the cluster. The libraries of
the clouds are extras of the package and are loaded when the first token of a cloud is needed.
"""

from palette_sync.cloud.errors import CloudError, CredentialsUnavailable, ServerRefused
from palette_sync.cloud.extras import missing_extra
from palette_sync.cloud.tokens import CloudTokens

__all__ = ["CloudError", "CloudTokens", "CredentialsUnavailable", "ServerRefused", "missing_extra"]
