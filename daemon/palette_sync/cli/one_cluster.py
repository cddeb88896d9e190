"""The one published cluster that an argument CLUSTER names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from palette_sync.cli.console import print_problems
from palette_sync.core.named import full_name, named
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.core.model import ClusterRecord, InstanceState

NAMED = 5  # clusters that an ambiguous title names


@dataclass(frozen=True, slots=True)
class OneCluster:
    """A cluster and the snapshot in which it stands."""

    record: ClusterRecord
    state: InstanceState


async def find_one(diagnosis: Diagnosis, cluster: str, instances: list[str] | None) -> OneCluster | None:
    """The published cluster with this name, uid, title or instance/name. Prints what is wrong if it is not one."""
    from palette_sync.store.inspect import inspect

    names, _ = await diagnosis.instances(instances)
    states = {name: (await inspect(diagnosis.store, diagnosis.sealer, name)).state for name in names}
    records = [record for state in states.values() for record in state.records.values()]
    found = named(cluster, records).found
    if len(found) == 1:
        return OneCluster(found[0], states[found[0].instance])
    if not found:
        print_unknown(cluster, records)
        return None
    several = ", ".join(f"{full_name(one)} ({visible(one.name)})" for one in found[:NAMED])
    dots = " ..." if len(found) > NAMED else ""
    print_problems([f"{visible(cluster)!r} may be {several}{dots}; name one of them"], title="which cluster?")
    return None


def print_unknown(cluster: str, records: Iterable[ClusterRecord]) -> None:
    near = named(cluster, records).near
    hint = f"did you mean {', '.join(near)}?" if near else "`palette-sync clusters -o name` lists all names"
    problem = f"no published cluster has the name, title or uid {visible(cluster)!r}; {hint}"
    print_problems([problem, "`palette-sync history` also finds clusters that were removed"], title="unknown cluster")
