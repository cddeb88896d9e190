"""`palette-sync status`: the status of the daemon on this machine, read from its HTTP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, short_duration, table_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit
from palette_sync.cli.styles import RUNNER_STATES
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.config import Settings

TIMEOUT = 5.0  # seconds
LIMIT = 4 * 1024 * 1024  # bytes of one response
_EXPECTED_KEYS = frozenset({"version", "pid", "state", "started_at", "config", "instances", "orphaned"})
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - a daemon listens there, this connects


def run(config: Path, *, as_json: bool) -> Exit:
    """Exit 0: live and ready; 1: not, or no daemon answers; 78: wrong configuration, or one without an endpoint."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.store import StartError
        from palette_sync.http import TransportError

        if not settings.http.listen:
            raise StartError('http.listen is "", so the daemon serves no status; set [http] listen')
        host, _, port = settings.http.listen.rpartition(":")
        base = f"http://{_LOOPBACK_OF.get(host, host)}:{port}"
        try:
            document, problems = await _read(base)
        except TransportError as error:
            print_problems(
                [f"{error}; check that `palette-sync run` is running on this machine"], title="no daemon answers"
            )
            return Exit.FAILED
        if document is None:
            print_problems([f"{base} is not palette-sync; check [http] listen"], title="another program answers")
            return Exit.FAILED
        if as_json:
            print_json({**document, "problems": problems})
        else:
            _print_status(document)
            if problems:
                print_problems(problems, title="not ready")
        return Exit.FAILED if problems else Exit.OK

    return run_command(config, work, log_level="error")


async def _read(base: str) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the status document, or None if another program answers, and the problems of health and readiness.

    Raises TransportError.
    """
    from palette_sync.http import open_session, request

    async with open_session(tls=True, connections=1, connect_timeout=TIMEOUT) as session:
        replies = {
            path: await request(session, "GET", base + path, timeout=TIMEOUT, max_body=LIMIT)
            for path in ("/livez", "/readyz", "/status.json")
        }
    problems = [
        line
        for path in ("/livez", "/readyz")
        if replies[path].status != 200  # noqa: PLR2004 - HTTP OK
        for line in replies[path].body.decode(errors="replace").splitlines()
    ]
    try:
        document = orjson.loads(replies["/status.json"].body)
    except orjson.JSONDecodeError:
        return None, problems
    is_ours = isinstance(document, dict) and document.keys() >= _EXPECTED_KEYS
    return document if is_ours else None, problems


def _held(one: dict[str, Any]) -> list[str]:
    """The line on the records that the prune guard holds, if there are any."""
    if not one.get("prune_held"):
        return []
    until = one.get("prune_held_until", "`palette-sync resync --allow-prune`")
    return [f"{one['prune_held']} drops held since {one['prune_held_since']} until {until}: {one['prune_held_why']}"]


def _print_status(document: dict[str, Any]) -> None:
    console = out()
    console.print(
        f"palette-sync {document['version']}, process {document['pid']}, {document['state']} since "
        f"{document['started_at']}, configuration loaded at {document['config']['loaded_at']}"
    )
    for problem in document["config"]["rejected"]:
        console.print(Text(f"  rejected configuration: {problem}", style="red"))
    rows: list[tuple[str | Text, ...]] = []
    for name, one in document["instances"].items():
        access = ", ".join(f"{count} {state}" for state, count in sorted(one["access"].items()))
        age = one.get("success_age_s")
        lapse = one.get("first_lapse_s")
        stale = "; ".join(
            [*_held(one), *(f"{scope}: {error}" for scope, error in one.get("scopes_failing", {}).items())]
        )
        rows.append(
            (
                name,
                Text(one["state"], style=RUNNER_STATES.get(one["state"], "")),
                access or "-",
                "never" if age is None else f"{short_duration(age)} ago",
                "-" if lapse is None else f"in {short_duration(lapse)}" if lapse >= 0 else Text("lapsed", style="red"),
                one.get("api_key_expires_at", "-")[:10],
                visible(one.get("error") or one.get("detail") or stale),
            )
        )
    headings = ("instance", "state", "clusters", "listed", "first token ends", "API key ends", "")
    console.print(table_of(headings, rows, console=console, optional=("API key ends", "first token ends")))
    for name in document["orphaned"]:
        console.print(Text(f"  {name} is published, but no longer configured", style="yellow"))
