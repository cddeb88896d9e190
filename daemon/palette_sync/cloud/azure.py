"""Tokens of Microsoft Entra ID for AKS.

The token is always asked for the one application that stands for all clusters of AKS, whatever a kubeconfig names as
`--server-id`: a token for another application could open something else. Source: Azure's kubelogin, "AKS AAD server".
"""

from __future__ import annotations

from typing import Any

from palette_sync.cloud.errors import CredentialsUnavailable
from palette_sync.core.model import Secret

AKS_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
_TIMEOUT = 5  # seconds, for each of connecting and reading
# Neither a program nor a person takes part: only the environment, a workload identity and a managed identity.
_LEFT_OUT = {
    f"exclude_{name}_credential": True
    for name in (
        *("cli", "developer_cli", "powershell", "shared_token_cache", "visual_studio_code", "interactive_browser"),
        "broker",
    )
}


class AzureTokens:
    """Finds the credentials once; the library renews the token. `options` go to azure-identity. The method blocks."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._credential: Any = None

    def token(self) -> Secret:
        """An access token for AKS. Raises CredentialsUnavailable."""
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        try:
            if self._credential is None:
                self._credential = DefaultAzureCredential(
                    connection_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retry_total=1, **_LEFT_OUT, **self._options
                )
            token = self._credential.get_token(AKS_SCOPE)
        except AzureError as error:
            # The texts of the library may quote what it received.
            raise CredentialsUnavailable(f"no Azure credentials can be used: {type(error).__name__}") from None
        return Secret(str(token.token))
