"""What granted roles allow beyond looking at workloads, said once for all instances that grant the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEDY = 'set rbac.preset = "view" if that is more than Backstage should see'


def wide_rights_by_instances(found: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Map the names of instances, as one text, to what their roles allow. `found`: `core.rbac.wide_rights` of each."""
    same: dict[tuple[str, ...], list[str]] = {}
    for name, rights in found.items():
        if rights:
            same.setdefault(rights, []).append(name)
    return {", ".join(names): "; ".join(rights) for rights, names in same.items()}
