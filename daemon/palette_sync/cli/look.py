"""The commands that only look: their options. They need no secrets and no whole valid configuration."""

from __future__ import annotations

from typing import Annotated

import typer

from palette_sync.cli.completion import complete_cluster
from palette_sync.cli.options import (
    ConfigOption,
    InstanceOption,
    JsonOption,
    OneInstanceOption,
    OutputOption,
    PrefixOption,
    RedisOption,
    leave,
    one_of,
    seconds_of,
)
from palette_sync.cli.places import DEFAULT_CONFIG


def status(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    url: Annotated[str, typer.Option("--url", help="Ask the daemon at this URL, for example http://host:9464.")] = "",
    source: Annotated[str, typer.Option("--from", metavar="daemon|redis", help="Where to read from.")] = "daemon",
    live: Annotated[bool, typer.Option("--live", help="Only ask whether the daemon lives, for health checks.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again until interrupted.")] = False,
    interval: Annotated[str, typer.Option("--interval", help="The pause between two looks with --watch.")] = "2s",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what is wrong, since when, what happens by itself, and what to do.

    Asks the daemon at the address of http.listen, or reads Redis from any machine with --from redis.
    """
    from palette_sync.cli import status as command
    from palette_sync.cli.diagnosis import Where

    if source not in {"daemon", "redis"}:
        raise typer.BadParameter(f"{source!r} is neither daemon nor redis", param_hint="--from")
    if url and not url.startswith(("http://", "https://")):
        raise typer.BadParameter("a URL begins with http:// or https://", param_hint="--url")
    options = command.Options(
        url=url,
        from_redis=source == "redis" or bool(redis),
        live=live,
        watch=seconds_of(interval, "--interval") if watch else 0.0,
        as_json=as_json,
    )
    leave(command.run(Where(config, redis, prefix), options))


def clusters(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Only these: names, titles, uids, with * and ?.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    project: Annotated[list[str] | None, typer.Option("--project", help="Only of this project, with * and ?.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only in this state: ready, degraded, failed, pending.")
    ] = None,
    reason: Annotated[list[str] | None, typer.Option("--reason", help="Only with this reason.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only with this Palette tag, with * and ?.")] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Only those that an operator paused.")] = False,
    sort: Annotated[
        str, typer.Option("--sort", help="By name, project, state, auth, version, expiry, reason, since or next-try.")
    ] = "name",
    output: OutputOption = "table",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the published clusters. Reads Redis only; a reader's Redis user is enough.

    Each option can be repeated and then means any of its values.
    """
    from palette_sync.cli import clusters as command
    from palette_sync.cli.diagnosis import Where
    from palette_sync.core.model import AccessState
    from palette_sync.core.rows import SORTS, Filter

    one_of(sort, SORTS, "--sort")
    for word in state or ():
        one_of(word, tuple(AccessState), "--state")
    patterns = (tuple(one or ()) for one in (names, project, state, reason, tag))
    wanted = Filter(*patterns, paused=paused)
    options = command.Options(instance, wanted, sort, "json" if as_json else output)
    leave(command.run(Where(config, redis, prefix), options))


def show(
    cluster: Annotated[
        str, typer.Argument(help="The name, title or uid of a cluster.", autocompletion=complete_cluster)
    ],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show everything that is known of a cluster except secrets, its history, and what happens next."""
    from palette_sync.cli import show as command
    from palette_sync.cli.diagnosis import Where

    leave(command.run(Where(config, redis, prefix), cluster, instances=instance, as_json=as_json))


def history(
    cluster: Annotated[
        str | None,
        typer.Argument(help="Only of this cluster: name, title or uid.", autocompletion=complete_cluster),
    ] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    since: Annotated[str, typer.Option("--since", help="Only changes within this time, for example 12h.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many changes.")] = 100,
    output: OutputOption = "table",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what changed in the published snapshots, newest first."""
    from datetime import timedelta

    from palette_sync.cli import past as command
    from palette_sync.cli.diagnosis import Where

    within = timedelta(seconds=seconds_of(since, "--since")) if since else None
    where = Where(config, redis, prefix)
    leave(
        command.history(
            where, cluster, instances=instance, since=within, limit=limit, output="json" if as_json else output
        )
    )


def at(
    version: Annotated[int, typer.Argument(min=1, help="A version of the snapshot.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: OneInstanceOption = None,
    output: OutputOption = "table",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the clusters as they were published in a former version."""
    from palette_sync.cli import versions as command
    from palette_sync.cli.diagnosis import Where

    leave(command.at(Where(config, redis, prefix), version, instance=instance, output="json" if as_json else output))


def diff(
    before: Annotated[int, typer.Argument(min=1, help="A version of the snapshot.")],
    after: Annotated[int, typer.Argument(min=1, help="A later version.")],
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: OneInstanceOption = None,
    output: OutputOption = "table",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two published versions."""
    from palette_sync.cli import versions as command
    from palette_sync.cli.diagnosis import Where

    leave(
        command.diff(
            Where(config, redis, prefix), before, after, instance=instance, output="json" if as_json else output
        )
    )


def events(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until interrupted.")] = False,
    output: OutputOption = "table",
    redis: RedisOption = "",
    prefix: PrefixOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the latest changes of all clusters, one per line, oldest first."""
    from palette_sync.cli import events as command
    from palette_sync.cli.diagnosis import Where

    leave(
        command.run(
            Where(config, redis, prefix), instances=instance, follow=follow, output="json" if as_json else output
        )
    )


def register(app: typer.Typer) -> None:
    for command in (status, clusters, show, history, at, diff, events):
        app.command()(command)
