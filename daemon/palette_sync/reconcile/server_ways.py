"""The ways to the API server of one cluster: Palette's kubeconfigs, and tokens of the cluster's cloud.

A token of a cloud is only ever combined with the server of the file that asked for it, after `cloud` has checked that
server. It is never sent to the address of Spectro Proxy, which Palette names.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from palette_sync import kube, palette
from palette_sync.core.reasons import Reason
from palette_sync.core.ways import Way, ways

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from palette_sync.cloud import CloudTokens
    from palette_sync.core.cloud import CloudCluster
    from palette_sync.core.due import Candidate
    from palette_sync.core.model import Secret, Server
    from palette_sync.core.policy import InstancePolicy

T = TypeVar("T")
# Without Spectro Proxy the file for users is the same either way, so one download is enough.
FIRST_FOR_USERS = Way.PROXY
# Characters. A usual file has 6,000, and a thread for it costs as much as parsing it.
SMALL_FILE = 8 * 1024


class AdminWays:
    """Opens the ways to one cluster, in one piece of work. Each file is downloaded at most once."""

    def __init__(
        self, candidate: Candidate, policy: InstancePolicy, client: palette.PaletteClient, cloud: CloudTokens
    ) -> None:
        self._candidate = candidate
        self._policy = policy
        self._client = client
        self._cloud = cloud
        self._file: Secret | None = None

    async def open(self, way: Way) -> kube.AdminAccess:
        """Raises PaletteError, CloudError, and KubeconfigError: CloudTokenNeeded where no token is configured."""
        return await (self._open_direct() if way is Way.DIRECT else self._open_proxy())

    async def with_token(self, refused: kube.AdminAccess) -> kube.AdminAccess | None:
        """The same server with a token of its cloud, after the credential of the file was refused; None if no token is
        configured for it. Raises CloudError.
        """
        if refused.from_cloud or refused.cloud is None:
            return None
        return await self._with_token(refused.server, refused.cloud)

    async def _open_direct(self) -> kube.AdminAccess:
        try:
            return await self._admin_file()
        except kube.CloudTokenNeeded as needed:
            admin = await self._with_token(needed.server, needed.cluster)
            if admin is None:
                raise
            return admin

    async def _with_token(self, server: Server, cluster: CloudCluster) -> kube.AdminAccess | None:
        identity = self._policy.cloud.identity_of(cluster.cloud, self._candidate.cluster)
        if identity is None:
            return None
        token = await self._cloud.token(cluster, server, identity)
        return kube.AdminAccess(server, kube.BearerToken(token), cluster, from_cloud=True)

    async def _open_proxy(self) -> kube.AdminAccess:
        """The file through Spectro Proxy: with its own credential if it has one, else with that of the admin file."""
        text = await palette.kubeconfig(self._client, self._candidate.cluster, frp=True)
        ca_pem = self._candidate.ca_pem
        try:
            return await _parsed(kube.parse, text, ca_pem)
        except kube.CloudTokenNeeded:
            raise
        except kube.KubeconfigError as error:
            if error.reason not in _WITHOUT_CREDENTIAL:
                raise
        server = await _parsed(kube.parse_server_only, text, ca_pem)
        return kube.AdminAccess(server, (await self._admin_file()).credential)

    async def _admin_file(self) -> kube.AdminAccess:
        if self._file is None:
            self._file = await palette.admin_kubeconfig(self._client, self._candidate.cluster)
        return await _parsed(kube.parse, self._file, self._candidate.ca_pem)


async def server_for_users(
    candidate: Candidate,
    policy: InstancePolicy,
    client: palette.PaletteClient,
    use: Callable[[Server], Awaitable[T]],
) -> tuple[T, Way]:
    """Return what `use` returns for the first server of an OIDC cluster with which it works, and the way to it.

    Raises what the first way failed with if none works: PaletteError, KubeconfigError, Unreachable.
    """
    tried: dict[Server | None, Exception] = {}
    for way in ways(policy.spectro_proxy, first=FIRST_FOR_USERS, remembered=candidate.memory.way):
        server = None
        try:
            text = await palette.kubeconfig(client, candidate.cluster, frp=way is Way.PROXY)
            server = await _parsed(kube.parse_server_only, text, candidate.ca_pem)
            if server not in tried:
                return await use(server), way
        except (kube.Unreachable, kube.ChainIncomplete, kube.KubeconfigError) as error:
            tried.setdefault(server, error)
    raise next(iter(tried.values()))


# A file for users has no credential of an administrator, but its server and CA are good.
_WITHOUT_CREDENTIAL = frozenset({Reason.EXEC_REFUSED, Reason.AUTH_PROVIDER_REFUSED, Reason.NO_CREDENTIAL})


async def _parsed(parse: Callable[..., T], text: Secret, ca_pem: str | None) -> T:
    """Parse a kubeconfig; a large one in a thread, so that it does not hold the event loop."""
    if len(text.reveal()) <= SMALL_FILE:
        return parse(text, ca_pem=ca_pem)
    return await asyncio.to_thread(partial(parse, text, ca_pem=ca_pem))
