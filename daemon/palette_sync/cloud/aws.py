"""Tokens of EKS: a presigned request of STS GetCallerIdentity, which the cluster itself sends to STS.

The token is bound to one cluster, whose name is a signed header. EKS accepts it for 15 minutes from its signature.
Source of the form: the documentation of aws-iam-authenticator ("API Authorization from Outside a Cluster").
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from palette_sync.cloud.errors import CredentialsUnavailable
from palette_sync.core.model import Secret

if TYPE_CHECKING:
    from palette_sync.core.cloud import Identity

PREFIX = "k8s-aws-v1."
CLUSTER_HEADER = "x-k8s-aws-id"
PRESIGNED_SECONDS = 60  # as aws-iam-authenticator signs; EKS counts 15 minutes from the signature whatever stands here
SESSION_NAME = "palette-sync"
_TIMEOUT = 5  # seconds, for each of connecting and reading
_CHINA = "cn-"


class AwsTokens:
    """Finds the credentials of each identity once, and signs tokens with them; botocore renews what expires.

    `endpoint_url` replaces the address of STS for the assumption of roles. The methods block.
    """

    def __init__(self, *, endpoint_url: str | None = None) -> None:
        self._endpoint_url = endpoint_url
        self._found: dict[tuple[str | None, str | None, str], Any] = {}

    def token(self, cluster: str, region: str, identity: Identity) -> Secret:
        """Sign a token for the EKS cluster of that name. Raises CredentialsUnavailable."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            url = self._signed(cluster, region, identity)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))[:64]
            what = "assume the role" if identity.role_arn else "use the credentials"
            raise CredentialsUnavailable(f"AWS refused to {what}: {code}") from None
        except BotoCoreError as error:
            # The texts of botocore may quote what it received.
            raise CredentialsUnavailable(f"no AWS credentials can be used: {type(error).__name__}") from None
        return Secret(PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("="))

    def _signed(self, cluster: str, region: str, identity: Identity) -> str:
        from botocore.hooks import HierarchicalEmitter
        from botocore.model import ServiceId
        from botocore.signers import RequestSigner

        credentials = self._credentials(region, identity)
        emitter = HierarchicalEmitter()  # the signer itself holds it only weakly
        signer = RequestSigner(ServiceId("STS"), region, "sts", "v4", credentials, emitter)
        suffix = ".cn" if region.startswith(_CHINA) else ""
        request = {
            "method": "GET",
            "url": f"https://sts.{region}.amazonaws.com{suffix}/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {CLUSTER_HEADER: cluster},
            "context": {},
        }
        url: str = signer.generate_presigned_url(
            request, operation_name="", expires_in=PRESIGNED_SECONDS, region_name=region
        )
        return url

    def _credentials(self, region: str, identity: Identity) -> Any:
        """The usual chain: environment, web identity, shared profile, container and instance metadata."""
        key = (identity.role_arn, identity.external_id, region)
        if key not in self._found:
            self._found[key] = self._find(region, identity)
        return self._found[key]

    def _find(self, region: str, identity: Identity) -> Any:
        from botocore.config import Config
        from botocore.credentials import (
            AssumeRoleCredentialFetcher,
            DeferredRefreshableCredentials,
        )
        from botocore.session import Session

        config = Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"total_max_attempts": 2})
        session = Session()
        session.set_default_client_config(config)
        credentials = session.get_credentials()
        if credentials is None:
            raise CredentialsUnavailable("no AWS credentials were found in the environment of the daemon")
        if identity.role_arn is None:
            return credentials

        def create_client(service: str, **options: Any) -> Any:
            return session.create_client(
                service, region_name=region, endpoint_url=self._endpoint_url, config=config, **options
            )

        extra = {"RoleSessionName": SESSION_NAME}
        if identity.external_id is not None:
            extra["ExternalId"] = identity.external_id
        fetcher = AssumeRoleCredentialFetcher(create_client, credentials, identity.role_arn, extra_args=extra)
        return DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")
