"""Which OIDC issuers Palette names that the configuration does not allow, for `palette-sync check`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from palette_sync.core.issuers import issuer_problem
from palette_sync.core.model import AuthMode
from palette_sync.fanout import fan_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from palette_sync.core.model import Cluster
    from palette_sync.core.policy import InstancePolicy
    from palette_sync.palette import OidcSpec, PaletteClient

MOST_ASKED = 100  # clusters: one request to Palette for each
_AT_ONCE = 8
_TIMEOUT = 60.0


async def refused_issuers(
    client: PaletteClient, policy: InstancePolicy, clusters: Sequence[Cluster]
) -> Counter[tuple[str, str]]:
    """Count the clusters of each issuer and client that is not allowed, among the first `MOST_ASKED` that may use OIDC.

    A cluster whose configuration cannot be read is left out: a pass reports it.
    """
    from palette_sync.palette import oidc_spec

    asked = [
        one
        for one in clusters
        if policy.mode_of(one) is not AuthMode.SERVICE_ACCOUNT and policy.filters.deselects(one) is None
    ][:MOST_ASKED]

    async def spec_of(cluster: Cluster) -> OidcSpec | None:
        return await oidc_spec(client, cluster)

    outcomes = await fan_out(asked, spec_of, limit=asyncio.Semaphore(_AT_ONCE), timeout=_TIMEOUT, name="issuers")
    specs = [outcome.value for outcome in outcomes if outcome.value is not None]
    return Counter(
        (spec.issuer_url, spec.client_id)
        for spec in specs
        if issuer_problem(spec.issuer_url, spec.client_id) is None
        and not policy.oidc.issuers.allows(spec.issuer_url, spec.client_id)
    )
