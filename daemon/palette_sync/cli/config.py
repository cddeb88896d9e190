"""The commands below `palette-sync config`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from palette_sync.cli.options import ConfigOption, JsonOption, leave
from palette_sync.cli.places import DEFAULT_CONFIG

app = typer.Typer(help="Write, show and explain the configuration.", no_args_is_help=True)


@app.command()
def init(
    *,
    target: Annotated[Path, typer.Option("--out", help="The file to write; it must not exist.")] = Path("config.toml"),
    instance: Annotated[str, typer.Option("--instance", "-i", help="A name for the Palette instance.")] = "",
    url: Annotated[str, typer.Option("--url", help="The URL of Palette's API.")] = "",
    mode: Annotated[str, typer.Option("--mode", help="service-account, oidc or auto.")] = "",
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="The file that holds the API key, or will.")
    ] = None,
    redis_url: Annotated[str, typer.Option("--redis-url", help="The URL of Redis, without a password.")] = "",
    redis_url_file: Annotated[
        Path | None, typer.Option("--redis-url-file", help="The file that holds the URL of Redis, or will.")
    ] = None,
    seal_keys_file: Annotated[
        Path | None, typer.Option("--seal-keys-file", help="Seal keys to use; written if there is no such file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a small configuration and new seal keys. Asks for what no option gives; overwrites nothing."""
    from palette_sync.cli import config_init as command

    given = command.Given(target, instance, url, mode, api_key_file, redis_url, redis_url_file, seal_keys_file)
    leave(command.run(given, as_json=as_json))


@app.command()
def show(
    config: ConfigOption = DEFAULT_CONFIG,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not at its default.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the configuration in force, without secrets, and where each value comes from."""
    from palette_sync.cli import config_show as command

    leave(command.show(config, changed=changed, as_json=as_json))


@app.command()
def example() -> None:
    """Print a configuration with every key, its default and what it means."""
    from palette_sync.cli import config_show as command

    leave(command.example())
