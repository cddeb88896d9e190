"""Which clusters are left by a pass: all that the configuration deselects, because their tokens would live on."""

from __future__ import annotations

from builders import cluster, tenant_cluster
from palette_sync.core.select import Filters
from palette_sync.reconcile.leave import DESELECTED


def test_every_reason_to_deselect_a_cluster_revokes_its_token() -> None:
    given = {
        Filters().deselects(cluster(virtual=True)),
        Filters(include_imported=False).deselects(cluster(imported=True)),
        Filters(exclude_tenant_scoped_clusters=True).deselects(tenant_cluster()),
        Filters(exclude_projects=("*",)).deselects(cluster()),
        Filters(exclude_tags=("old",)).deselects(cluster(tags=("old",))),
        Filters(include_tags=("new",)).deselects(cluster()),
    }

    assert given == DESELECTED
