"""The commands that act on one cluster: their options. They need Redis and the seal key, and no valid configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from palette_sync.cli.completion import complete_cluster
from palette_sync.cli.options import (
    ConfigOption,
    InstanceOption,
    JsonOption,
    PrefixOption,
    RedisOption,
    WaitOption,
    leave,
    seconds_of,
)
from palette_sync.cli.places import DEFAULT_CONFIG

ClusterArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLUSTER",
        help="A name, uid or title, or INSTANCE/NAME or INSTANCE/UID.",
        autocompletion=complete_cluster,
    ),
]


def rotate(
    cluster: ClusterArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End the former token too, once the new one is published.")
    ] = False,
    wait: WaitOption = "2m",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the daemon for a new token of one cluster now.

    Without --revoke the former token lives until its own end. With it, the Secret to which it is bound is deleted.
    """
    from palette_sync.cli import act as command
    from palette_sync.cli.diagnosis import Where

    seconds = seconds_of(wait, "--wait")
    where = Where(config, redis, prefix)
    leave(command.rotate(where, cluster, revoke=revoke, instances=instance, wait=seconds, as_json=as_json))


def pause(
    cluster: ClusterArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for everybody who looks.")],
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    lasts: Annotated[
        str, typer.Option("--for", help="How long, for example 2h; without it until `palette-sync resume`.")
    ] = "",
    wait: WaitOption = "1m",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let the daemon write nothing to one cluster, and keep its record. Its token is not renewed meanwhile."""
    from datetime import timedelta

    from palette_sync.cli import act as command
    from palette_sync.cli.diagnosis import Where
    from palette_sync.core.cluster_request import LONGEST_PAUSE

    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    within = timedelta(seconds=int(seconds_of(lasts, "--for"))) if lasts else None
    if within is not None and not timedelta(0) < within <= LONGEST_PAUSE:
        raise typer.BadParameter(f"{lasts!r} is not between 1s and {LONGEST_PAUSE.days}d", param_hint="--for")
    seconds = seconds_of(wait, "--wait")
    where = Where(config, redis, prefix)
    code = command.pause(where, cluster, reason=reason, lasts=within, instances=instance, wait=seconds, as_json=as_json)
    leave(code)


def resume(
    cluster: ClusterArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    wait: WaitOption = "2m",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """End the pause of one cluster; the daemon looks at it at once."""
    from palette_sync.cli import act as command
    from palette_sync.cli.diagnosis import Where

    seconds = seconds_of(wait, "--wait")
    leave(command.resume(Where(config, redis, prefix), cluster, instances=instance, wait=seconds, as_json=as_json))


def kubeconfig(
    cluster: ClusterArgument,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="The new file to write. Default NAME.kubeconfig; - = print."),
    ] = "",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Write a kubeconfig with the published read-only token of one cluster, readable by its owner alone.

    It needs the seal key. The file holds the token in the clear.
    """
    from palette_sync.cli import kubeconfig as command
    from palette_sync.cli.diagnosis import Where

    if as_json and output == command.STDOUT:
        raise typer.BadParameter("prints the kubeconfig itself", param_hint="--output -")
    where = Where(config, redis, prefix)
    leave(command.run(where, cluster, output=output, instances=instance, as_json=as_json))


def register(app: typer.Typer) -> None:
    for command in (rotate, pause, resume, kubeconfig):
        app.command()(command)
