"""The command line: commands and their options. Each command imports what it needs when it runs."""

from __future__ import annotations

import sys

from palette_sync.service.early_signals import keep_early_signals
from palette_sync.service.garbage_collection import collect_less_often

keep_early_signals(sys.argv)
collect_less_often()

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo

from palette_sync import __version__
from palette_sync.cli import acting, look
from palette_sync.cli import config as config_commands
from palette_sync.cli.completion import complete_cluster, complete_instance
from palette_sync.cli.exits import Exit
from palette_sync.cli.options import (
    ConfigOption,
    InstanceOption,
    JsonOption,
    WaitOption,
    leave,
    seconds_of,
)
from palette_sync.cli.places import DEFAULT_CONFIG

DETAILED = "--detailed-exitcode"
app = typer.Typer(
    name="palette-sync",
    help="Connects Spectro Cloud Palette to Backstage: discovers clusters, grants read-only access, publishes both.",
    epilog="Exit codes: 0 all is well, 1 something failed or is wrong, 2 wrong arguments, 75 another process holds the "
    "lease, 78 the configuration is wrong. docs/operations.md says what that means for each command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"palette-sync {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the daemon until SIGTERM: discover on a schedule, rotate tokens, publish.

    SIGHUP reloads the configuration, SIGUSR1 resyncs now, SIGUSR2 writes the state to the log.
    """
    from palette_sync.cli import run as command

    leave(command.run(config))


@app.command()
def resync(
    cluster: Annotated[
        str | None,
        typer.Argument(
            metavar="CLUSTER",
            help="Only this one: a name, uid, title or INSTANCE/NAME.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    allow_prune: Annotated[
        bool, typer.Option("--allow-prune", help="Drop all clusters that disappeared, even if they are many.")
    ] = False,
    wait: WaitOption = "10m",
    as_json: JsonOption = False,
) -> None:
    """Ask the running daemon, through Redis, to verify every cluster or one of them now, and wait for the result."""
    from palette_sync.cli import ask as command
    from palette_sync.cli.diagnosis import Where

    seconds = seconds_of(wait, "--wait")
    if cluster is not None:
        from palette_sync.cli import act

        if allow_prune:
            raise typer.BadParameter("concerns all clusters of an instance", param_hint="--allow-prune")
        leave(act.resync(Where(config), cluster, instances=instance, wait=seconds, as_json=as_json))
    leave(command.resync(Where(config), instance, allow_prune=allow_prune, wait=seconds, as_json=as_json))


@app.command()
def reload(
    config: ConfigOption = DEFAULT_CONFIG,
    allow_prune: Annotated[
        bool, typer.Option("--allow-prune", help="Apply it even if its filters deselect many published clusters.")
    ] = False,
    wait: WaitOption = "1m",
    as_json: JsonOption = False,
) -> None:
    """Ask every running daemon, through Redis, to read its configuration again, and show what each answers."""
    from palette_sync.cli import reload as command
    from palette_sync.cli.diagnosis import Where

    seconds = seconds_of(wait, "--wait")
    leave(command.reload(Where(config), allow_prune=allow_prune, wait=seconds, as_json=as_json))


@app.command()
def once(
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    resync: Annotated[
        bool, typer.Option("--resync", help="Verify every cluster, also those that wait before a retry.")
    ] = False,
    allow_prune: Annotated[
        bool, typer.Option("--allow-prune", help="Drop all clusters that disappeared, even if they are many.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run one pass over each instance and show what changed."""
    from palette_sync.cli import once as command

    leave(command.run(config, instance, resync=resync, allow_prune=allow_prune, as_json=as_json))


@app.command()
def plan(
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    resync: Annotated[bool, typer.Option("--resync", help="Plan a pass that verifies every cluster.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option(DETAILED, help="Exit 0: nothing to do; 2: changes; anything else: an error.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a pass would do. Takes no lease and writes nothing anywhere."""
    from palette_sync.cli import plan as command

    code = command.run(config, instance, resync=resync, detailed_exitcode=detailed_exitcode, as_json=as_json)
    if code == Exit.CHANGES:
        raise PlannedChanges(int(code))
    leave(code)


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG, instance: InstanceOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration, Palette credentials and permissions, Redis and seal keys. Writes nothing."""
    from palette_sync.cli import check as command

    leave(command.run(config, instance, as_json=as_json))


look.register(app)
acting.register(app)
app.add_typer(config_commands.app, name="config")


@app.command("replace-legacy")
def replace_legacy(
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete. Without it the command only shows what it would delete.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete the Secrets with never-expiring tokens that the in-process plugin left (reason LegacyToken)."""
    from palette_sync.cli import replace_legacy as command

    leave(command.run(config, instance, yes=yes, as_json=as_json))


@app.command()
def release(
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    instance: InstanceOption = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster",
            help="Only this cluster, by name or uid, published or not; can be repeated.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    unpublished: Annotated[
        bool, typer.Option("--unpublished", help="Also the clusters that Palette lists and that are not published.")
    ] = False,
    keep_adopted: Annotated[
        bool, typer.Option("--keep-adopted", help="Leave adopted objects as they are, with our labels.")
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="Palette's address, for an instance that is not configured any more.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="The file with its API key.", readable=False)
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it. Without it the command only shows what it would do.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove every object of ours from clusters, which revokes the tokens, and drop their records."""
    from palette_sync.cli import release as command

    if (url is None) != (api_key_file is None):
        raise typer.BadParameter("--url and --api-key-file go together", param_hint="--url")
    former = command.Former(url, api_key_file) if url is not None and api_key_file is not None else None
    choice = command.Choice(tuple(cluster or ()), unpublished=unpublished, keep_adopted=keep_adopted, yes=yes)
    leave(command.run(config, instance, choice, former, as_json=as_json))


@app.command()
def forget(
    instance: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE",
            help="An instance that is not configured any more.",
            autocompletion=complete_instance,
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: Annotated[
        bool, typer.Option("--yes", help="Delete. Without it the command only shows what is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what Redis holds of one orphaned instance. No cluster is touched: `release` it before."""
    from palette_sync.cli import forget as command
    from palette_sync.cli.diagnosis import Where

    leave(command.run(Where(config), instance, yes=yes, as_json=as_json))


@app.command("import-backstage")
def import_backstage(
    files: Annotated[
        list[Path], typer.Argument(metavar="APP_CONFIG", help="As Backstage is given them: later ones win.")
    ],
    target: Annotated[Path, typer.Option("--out", help="The configuration to write; it must not exist.")] = Path(
        "config.toml"
    ),
    as_json: JsonOption = False,
) -> None:
    """Write our configuration from that of the in-process plugin in app-config.yaml, and show what changes."""
    from palette_sync.cli import import_backstage as command

    leave(command.run(files, target, as_json=as_json))


@app.command("seal-key")
def seal_key(
    kid: Annotated[str | None, typer.Argument(help="A name for the key.")] = None, as_json: JsonOption = False
) -> None:
    """Print a new line for the seal keys file. Its first key seals, all of its keys open."""
    from palette_sync.store.seal import SealKeyError, SealKeys

    try:
        line = SealKeys.generate_line(kid)
    except SealKeyError as error:
        typer.echo(f"palette-sync: {error}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    name, key = line.split()
    typer.echo(json.dumps({"kid": name, "key": key}) if as_json else line)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Where config.toml, seal.keys and simulator.json are written.")],
    *,
    instances: Annotated[int, typer.Option(min=1, max=16)] = 2,
    projects: Annotated[int, typer.Option(min=1, help="In total over all instances.")] = 6,
    clusters: Annotated[int, typer.Option(min=0, help="In total over all instances.")] = 24,
    latency: Annotated[str, typer.Option(help="Added to every answer, for example 50ms.")] = "0ms",
    seed: Annotated[int, typer.Option(help="The same seed makes the same world.")] = 0,
    listen: Annotated[str, typer.Option(help="IPv4 address to bind; 0.0.0.0 = all, for containers.")] = "127.0.0.1",
    host: Annotated[
        str, typer.Option(help="Name or IPv4 address by which clients reach it, for URLs and certificates.")
    ] = "127.0.0.1",
    mix: Annotated[bool, typer.Option("--mix", help="Clusters of every kind, also those that need more.")] = False,
    redis_url: Annotated[
        str, typer.Option(help="Written into config.toml; must need no password.")
    ] = "redis://127.0.0.1:6379/0",
    as_json: JsonOption = False,
) -> None:
    """Serve simulated Palette instances and Kubernetes API servers, on loopback by default, until interrupted."""
    from palette_sync.cli import simulate as command

    leave(
        command.run(
            out,
            instances=instances,
            projects=projects,
            clusters=clusters,
            latency=latency,
            seed=seed,
            listen=listen,
            host=host,
            mix=mix,
            redis_url=redis_url,
            as_json=as_json,
        )
    )


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep running afterwards and show how to explore.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what palette-sync does, end to end, with the simulator and an embedded Valkey."""
    from palette_sync.cli import demo as command

    leave(command.run(keep=keep, as_json=as_json))


def _only_the_asked_command(words: Sequence[str]) -> None:
    """Leave out the other commands: to build their options takes longer than what many commands do.

    For help, completion and an unknown command all of them stay.
    """
    asked = next((word for word in words if not word.startswith("-")), None)
    commands = [one for one in app.registered_commands if _name_of(one) == asked]
    groups = [one for one in app.registered_groups if one.name == asked]
    if (commands or groups) and f"_{app.info.name}_COMPLETE".upper().replace("-", "_") not in os.environ:
        app.registered_commands, app.registered_groups = commands, groups


def _name_of(command: CommandInfo) -> str:
    return command.name or (command.callback.__name__ if command.callback else "")


class PlannedChanges(SystemExit):
    """`plan --detailed-exitcode` found changes. Its exit code is that of wrong arguments in every other command."""


def main() -> None:
    """Run the command line. A closed pipe (`| head`) is success; a full disk is a failure with a message."""
    _only_the_asked_command(sys.argv[1:])
    try:
        app()
    except SystemExit as ended:
        if ended.code == Exit.USAGE and DETAILED in sys.argv and not isinstance(ended, PlannedChanges):
            sys.exit(Exit.FAILED)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"palette-sync: cannot write the output: {error.strerror}\n")
        sys.exit(Exit.FAILED)
