"""`palette-sync status`: how the daemon on this machine stands, asked at its HTTP endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from rich.text import Text

from palette_sync.cli.console import complain, out, plain, print_json, span, table_of
from palette_sync.cli.entry import run_command
from palette_sync.cli.exits import Exit

if TYPE_CHECKING:
    from pathlib import Path

    from palette_sync.config import Settings

TIMEOUT = 5.0  # seconds
LIMIT = 4 * 1024 * 1024
STATE_STYLE = {"leading": "green", "standby": "cyan", "storeless": "red", "starting": "yellow", "stopped": "red"}
_TOLD = frozenset({"version", "pid", "state", "started_at", "config", "instances", "orphaned"})
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - where a daemon may listen, not where this does


def run(config: Path, *, as_json: bool) -> Exit:
    """Exit 0: live and ready; 1: not, or no daemon answers; 78: the configuration is wrong, or has no endpoint."""

    async def work(settings: Settings) -> Exit:
        from palette_sync.assembly.store import StartError
        from palette_sync.http import TransportError, open_session, request

        if not settings.http.listen:
            raise StartError('http.listen is "": the daemon has no endpoint to be asked at')
        host, _, port = settings.http.listen.rpartition(":")
        base = f"http://{_ANY.get(host, host)}:{port}"
        try:
            async with open_session(tls=True, connections=1, connect_timeout=TIMEOUT) as session:
                replies = {
                    path: await request(session, "GET", base + path, timeout=TIMEOUT, max_body=LIMIT)
                    for path in ("/livez", "/readyz", "/status.json")
                }
                document = orjson.loads(replies["/status.json"].body)
        except TransportError as error:
            complain([f"{error}; is `palette-sync run` up here?"], title="no daemon answers")
            return Exit.FAILED
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict) or not document.keys() >= _TOLD:
            complain([f"{base} is not palette-sync; see [http] listen"], title="somebody else answers")
            return Exit.FAILED
        problems = [
            line
            for path in ("/livez", "/readyz")
            if replies[path].status != 200  # noqa: PLR2004 - HTTP OK
            for line in replies[path].body.decode(errors="replace").splitlines()
        ]
        if as_json:
            print_json({**document, "problems": problems})
        else:
            _print(document)
            if problems:
                complain(problems, title="not ready")
        return Exit.FAILED if problems else Exit.OK

    return run_command(config, work, log_level="error")


def _print(document: dict[str, Any]) -> None:
    console = out()
    console.print(
        f"palette-sync {document['version']}, process {document['pid']}, {document['state']} since "
        f"{document['started_at']}, configuration of {document['config']['loaded_at']}"
    )
    for problem in document["config"]["rejected"]:
        console.print(Text(f"  rejected configuration: {problem}", style="red"))
    rows: list[tuple[str | Text, ...]] = []
    for name, one in document["instances"].items():
        access = ", ".join(f"{count} {state}" for state, count in sorted(one["access"].items()))
        age = one.get("success_age_s")
        lapse = one.get("first_lapse_s")
        stale = "; ".join(f"{scope}: {error}" for scope, error in one.get("scopes_failing", {}).items())
        rows.append(
            (
                name,
                Text(one["state"], style=STATE_STYLE.get(one["state"], "")),
                access or "-",
                "never" if age is None else f"{span(age)} ago",
                "-" if lapse is None else f"in {span(lapse)}" if lapse >= 0 else Text("lapsed", style="red"),
                one.get("api_key_expires_at", "-")[:10],
                plain(one.get("error") or one.get("detail") or stale),
            )
        )
    headings = ("instance", "state", "clusters", "listed", "first token ends", "API key ends", "")
    console.print(table_of(headings, rows, console=console, spare=("API key ends", "first token ends")))
    for name in document["orphaned"]:
        console.print(Text(f"  {name} is published, but not configured any more", style="yellow"))
