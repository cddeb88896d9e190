"""What was last done to each object of a cluster is remembered, for whoever looks at the cluster."""

from __future__ import annotations

from builders import HOUR, KEY, NOW, SERVER, SERVICE_ACCOUNT
from palette_sync.core.actions import Action
from palette_sync.core.done import Done, last_done
from palette_sync.core.fold import AccessFailed, AccessGained, fold_memory
from palette_sync.core.model import ClusterMemory
from palette_sync.core.objects import Kind
from palette_sync.core.reasons import Reason

GAINED = AccessGained(SERVER, SERVICE_ACCOUNT, kubernetes_version="v1.33.1", desired="d")
UNREACHABLE = AccessFailed(Reason.UNREACHABLE, "no answer")


def test_what_was_last_done_to_each_object_is_remembered() -> None:
    created = [Action("create", kind, "n", Reason.MISSING) for kind in (Kind.NAMESPACE, Kind.CLUSTER_ROLE)]
    first = fold_memory(ClusterMemory(), GAINED, key=KEY, desired="d", now=NOW, actions=tuple(created))
    assert first.done == (Done("create", "Missing", NOW, ("Namespace", "ClusterRole")),)
    assert fold_memory(first, GAINED, key=KEY, desired="d", now=NOW + HOUR).done == first.done

    changed = (
        Action("update", Kind.CLUSTER_ROLE, "n", Reason.ROLE_DRIFTED),
        Action("delete", Kind.SECRET, "old", Reason.OVERLAP_OVER),
        Action("issue", Kind.TOKEN, "n", Reason.TOKEN_DUE),
    )
    later = NOW + HOUR
    for verdict in (GAINED, UNREACHABLE):
        done = fold_memory(first, verdict, key=KEY, desired="d", now=later, actions=changed).done
        assert done == (
            Done("create", "Missing", NOW, ("Namespace",)),
            Done("update", "RoleDrifted", later, ("ClusterRole",)),
            Done("issue", "TokenDue", later, ("Token",)),
        )
        assert last_done(done, "ClusterRole") == done[1]
        assert last_done(done, "Secret") is None
