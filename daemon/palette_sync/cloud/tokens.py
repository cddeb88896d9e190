"""The one way to a token of a cloud: nothing is asked for, and nothing is sent, before the server was checked."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from palette_sync.cloud import google
from palette_sync.cloud.aws import AwsTokens
from palette_sync.cloud.azure import AzureTokens
from palette_sync.cloud.deadline import within
from palette_sync.cloud.errors import CredentialsUnavailable, ServerRefused
from palette_sync.core.cloud import TITLES, Cloud, CloudCluster, Identity, eks_region, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from palette_sync.core.model import Secret, Server

DEADLINE = 20.0  # seconds for one token
THREADS = 4  # tokens that are asked for at once


class CloudTokens:
    """Tokens for the clusters of one process. It keeps what the libraries keep in memory, and writes nothing anywhere.

    `aws`, `azure`, `google_api` and `google_ca_pem` replace the clouds' own addresses in tests.
    """

    def __init__(
        self,
        *,
        aws: AwsTokens | None = None,
        azure: AzureTokens | None = None,
        google_api: str = google.API,
        google_ca_pem: str | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self._aws = aws or AwsTokens()
        self._azure = azure or AzureTokens()
        self._google = google.GoogleTokens()
        self._google_api = google_api
        self._google_ca_pem = google_ca_pem
        self._deadline = deadline
        self._threads = asyncio.Semaphore(THREADS)

    async def token(self, cluster: CloudCluster, server: Server, identity: Identity) -> Secret:
        """A token that may be sent to this server. Raises ServerRefused before anything is asked for, where the server
        does not belong to the cloud, and CredentialsUnavailable.
        """
        if problem := refusal(cluster, server):
            raise ServerRefused(problem)
        if cluster.cloud is Cloud.AWS:
            region = eks_region(server)
            assert region is not None
            return await self._call(cluster.cloud, partial(self._aws.token, cluster.name, region, identity))
        if cluster.cloud is Cloud.AZURE:
            return await self._call(cluster.cloud, self._azure.token)
        if cluster.project not in identity.projects:
            raise ServerRefused(f"the project {cluster.project} is not one of cloud.google.projects")
        token = await self._call(cluster.cloud, self._google.token)
        await google.confirm(cluster, server, token, api=self._google_api, ca_pem=self._google_ca_pem)
        return token

    async def _call(self, cloud: Cloud, work: Callable[[], Secret]) -> Secret:
        async with self._threads:
            try:
                return await within(self._deadline, work, name=f"token-of-{cloud.value}")
            except TimeoutError:
                raise CredentialsUnavailable(f"{TITLES[cloud]} gave no token within {self._deadline:g} s") from None
