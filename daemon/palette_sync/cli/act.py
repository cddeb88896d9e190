"""`palette-sync resync CLUSTER`, `rotate`, `pause` and `resume`: what the daemon is to do with one cluster.

The daemon that leads the cluster's instance carries the request out and answers, as for `resync` and `reload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from palette_sync.cli.ask import ask_daemon, without_seal_key
from palette_sync.cli.console import out, print_json, progress_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.exits import Exit
from palette_sync.cli.one_cluster import find_one
from palette_sync.core.cluster_request import ClusterRequest, encode_cluster_request
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from palette_sync.assembly.diagnosis import Diagnosis
    from palette_sync.store.control import Verb


def resync(where: Where, cluster: str, *, instances: list[str] | None, wait: float, as_json: bool) -> Exit:
    """Exit 0: the daemon looked at the cluster, and it has access; 1: it has none, was not looked at, or there is no
    such cluster or no answer in time; 78: it is unknown where Redis is, or there is no seal key.
    """
    from palette_sync.store.control import Verb

    return _act(where, cluster, Verb.RESYNC_CLUSTER, ClusterRequest, instances=instances, wait=wait, as_json=as_json)


def rotate(
    where: Where, cluster: str, *, revoke: bool, instances: list[str] | None, wait: float, as_json: bool
) -> Exit:
    """Exit 0: a new token is published, and with `revoke` the former one has ended; 1 and 78 as `resync`."""
    from palette_sync.store.control import Verb

    def request(uid: str) -> ClusterRequest:
        return ClusterRequest(uid, revoke=revoke)

    return _act(where, cluster, Verb.ROTATE, request, instances=instances, wait=wait, as_json=as_json)


def pause(
    where: Where,
    cluster: str,
    *,
    reason: str,
    lasts: timedelta | None,
    instances: list[str] | None,
    wait: float,
    as_json: bool,
) -> Exit:
    """Exit 0: the pause is published, and nothing is written to the cluster from now on; 1 and 78 as `resync`."""
    from palette_sync.store.control import Verb

    def request(uid: str) -> ClusterRequest:
        return ClusterRequest(uid, reason=reason, lasts=lasts)

    return _act(where, cluster, Verb.PAUSE, request, instances=instances, wait=wait, as_json=as_json)


def resume(where: Where, cluster: str, *, instances: list[str] | None, wait: float, as_json: bool) -> Exit:
    """Exit 0: the cluster is not paused any more; 1: a tag in Palette still pauses it, else 1 and 78 as `resync`."""
    from palette_sync.store.control import Verb

    return _act(where, cluster, Verb.RESUME, ClusterRequest, instances=instances, wait=wait, as_json=as_json)


def _act(
    where: Where,
    cluster: str,
    verb: Verb,
    request: Callable[[str], ClusterRequest],
    *,
    instances: list[str] | None,
    wait: float,
    as_json: bool,
) -> Exit:
    async def work(diagnosis: Diagnosis) -> Exit:
        from palette_sync.store.control import AnswerStatus

        if not diagnosis.verifies:
            return without_seal_key(diagnosis)
        await diagnosis.store.ping()
        found = await find_one(diagnosis, cluster, instances)
        if found is None:
            return Exit.FAILED
        instance, arguments = found.record.instance, encode_cluster_request(request(found.record.uid))
        with progress_of([instance], show=not as_json) as reporter:
            answer = await ask_daemon(
                diagnosis.store,
                diagnosis.sealer,
                instance,
                verb,
                wait=wait,
                progress=reporter(instance),
                arguments=arguments,
            )
        done = answer.word is AnswerStatus.DONE
        if as_json:
            beside = {"instance": instance, "uid": found.record.uid, "name": found.record.name}
            print_json({**beside, "ok": done, "text": answer.text, **answer.document})
        else:
            style = "bold green" if done else "bold red"
            out().print(Text.assemble((instance, style), f": {visible(answer.text)}"))
        return Exit.OK if done else Exit.FAILED

    return run_diagnosis(where, work, remarks=False)
