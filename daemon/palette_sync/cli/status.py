"""`palette-sync status`: what is wrong, since when, what happens by itself, and what to do.

The daemon answers over HTTP. With `--from redis` the same is computed here, from what lies in Redis.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from rich.text import Text

from palette_sync.cli.console import out, print_json, print_problems, table_of
from palette_sync.cli.diagnosis import Where, run_diagnosis
from palette_sync.cli.endpoint import NotAsked, get
from palette_sync.cli.entry import run_work
from palette_sync.cli.exits import Exit
from palette_sync.cli.problem_lines import moment_of, print_problem_list, verdict
from palette_sync.cli.styles import RUNNER_STATES
from palette_sync.core.durations import short_duration, time_for_people
from palette_sync.core.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from palette_sync.assembly.diagnosis import Diagnosis

_EXPECTED_KEYS = frozenset({"version", "pid", "state", "started_at", "config", "instances", "orphaned"})
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - a daemon listens there, this connects
_OK = 200


class NoAnswer(Exception):
    """No daemon answers, or something else does. `title` is for people."""

    def __init__(self, title: str, text: str) -> None:
        self.title = title
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Options:
    """`url`: the endpoint of a daemon, "" = that of the configuration. `watch`: seconds between two looks, 0 = once."""

    url: str = ""
    from_redis: bool = False
    live: bool = False
    watch: float = 0.0
    as_json: bool = False


def run(where: Where, options: Options) -> Exit:
    """Exit 0: nothing is wrong; 1: something is, or no daemon answers; 78: it is unknown where to ask.

    With `live`, only whether the daemon lives counts.
    """
    if options.from_redis:

        async def look(diagnosis: Diagnosis) -> Exit:
            return await _show(options, lambda: _from_redis(diagnosis))

        return run_diagnosis(where, look, remarks=False)
    base = options.url.rstrip("/")
    if not base:
        base, problems = _configured_endpoint(where)
        if not base:
            print_problems(problems, title="it is unknown where the daemon listens")
            return Exit.CONFIG
    if options.live:
        return run_work(lambda: _live(base))
    return run_work(lambda: _show(options, lambda: _from_daemon(base)))


def _configured_endpoint(where: Where) -> tuple[str, list[str]]:
    """Return the URL of the daemon's endpoint on this machine, or "" and the reason."""
    settings = where.settings()
    wrong = settings.problems.get("http") or settings.problems.get("file")
    if wrong and settings.listen == type(settings)().listen:
        return "", [*wrong, "name the endpoint with --url, or use --from redis"]
    if not settings.listen:
        return "", ['http.listen is "", so the daemon serves no status; set [http] listen, or use --from redis']
    host, _, port = settings.listen.rpartition(":")
    return f"http://{_LOOPBACK_OF.get(host, host)}:{port}", []


async def _show(options: Options, read: Any) -> Exit:
    """Print the status once, or again and again until interrupted."""
    while True:
        code = await _show_once(options, read)
        if not options.watch:
            return code
        await asyncio.sleep(options.watch)


async def _show_once(options: Options, read: Any) -> Exit:
    try:
        document = await read()
    except NoAnswer as error:
        print_problems([str(error)], title=error.title)
        return Exit.FAILED
    if options.as_json:
        print_json(document)
    else:
        console = out()
        if options.watch:
            console.clear()
        print_status(document, console=console)
    return Exit.OK if document["ok"] else Exit.FAILED


# -- from the daemon --------------------------------------------------------------------------------------------------


async def _live(base: str) -> Exit:
    try:
        reply = get(f"{base}/livez")
    except NotAsked as error:
        print_problems([f"{error}; {_IS_IT_UP}"], title="no daemon answers")
        return Exit.FAILED
    text = reply.body.decode(errors="replace").strip()
    if reply.status == _OK and text == "ok":
        out().print("live")
        return Exit.OK
    if reply.status == _OK:
        print_problems([f"{base} is not palette-sync; {_WHERE_IT_LISTENS}"], title="another program answers")
    else:
        print_problems(text.splitlines(), title="not live")
    return Exit.FAILED


_IS_IT_UP = "check that `palette-sync run` is running there; `palette-sync status --from redis` needs no daemon"
_WHERE_IT_LISTENS = "check [http] listen, or --url"


async def _from_daemon(base: str) -> dict[str, Any]:
    """Return the daemon's status document. Raises NoAnswer."""
    try:
        reply = get(f"{base}/status.json")
    except NotAsked as error:
        raise NoAnswer("no daemon answers", f"{error}; {_IS_IT_UP}") from None
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or not document.keys() >= _EXPECTED_KEYS:
        raise NoAnswer("another program answers", f"{base} is not palette-sync; {_WHERE_IT_LISTENS}")
    if "problems" not in document:
        raise NoAnswer("another version answers", f"palette-sync {document['version']} at {base} reports no problems")
    return document


# -- from Redis -------------------------------------------------------------------------------------------------------


async def _from_redis(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the same document, as far as Redis has it. Raises NoAnswer."""
    from palette_sync.core.documents import format_time
    from palette_sync.core.problems import find_problems, is_wrong, problem_document
    from palette_sync.store.inspect import living
    from palette_sync.store.redis import StoreError
    from palette_sync.telemetry.status import (
        member_documents,
        stored_document,
        stranger_documents,
        unread_document,
    )

    now = datetime.now(UTC)
    try:
        names, published = await diagnosis.instances(None)
        company = await living(diagnosis.store, diagnosis.sealer)
        inspected, unread = await diagnosis.inspect(names)
    except StoreError as error:
        raise NoAnswer("Redis cannot be used", str(error)) from None
    document: dict[str, Any] = {
        "source": "redis",
        "now": format_time(now),
        "orphaned": sorted(published - diagnosis.configured) if diagnosis.configured is not None else [],
        "remarks": list(diagnosis.remarks),
        "members": member_documents(company.members) if company else [],
        "strangers": stranger_documents(company.strangers) if company else [],
        "instances": {
            name: stored_document(
                one.state,
                now,
                holder=one.leader.holder if one.leader else None,
                since=one.leader.since if one.leader else None,
                lease_known="lease" not in one.denied,
            )
            for name, one in inspected.items()
        }
        | {name: unread_document(reason, now) for name, reason in unread.items()},
    }
    denied = set().union(*(one.denied for one in inspected.values()), set() if company else {"members"})
    if denied:
        document["remarks"].append(
            f"the Redis user may not read {', '.join(sorted(denied))}: what follows from them is missing"
        )
    problems = find_problems(document, {name: one.state for name, one in inspected.items()}, now=now)
    return {**document, "ok": not is_wrong(problems), "problems": [problem_document(one) for one in problems]}


# -- for people -------------------------------------------------------------------------------------------------------


def print_status(document: dict[str, Any], *, console: Console) -> None:
    """Print what is wrong first, then a line for each instance."""
    problems, now = document["problems"], datetime.now(UTC)
    what = f"palette-sync {document['version']}" if "version" in document else "palette-sync, as Redis has it"
    console.print(Text.assemble((f"{what}: ", "bold"), verdict(problems)))
    if "pid" in document:
        console.print(
            Text(
                f"process {document['pid']}, {document['state']} since {_time(document['started_at'])}, "
                f"configuration loaded at {_time(document['config']['loaded_at'])}",
                style="dim",
            )
        )
    for remark in document.get("remarks", ()):
        console.print(Text(f"  {visible(remark)}", style="yellow"))
    print_problem_list(problems, console=console, now=now)
    rows: list[tuple[str | Text, ...]] = []
    for name, one in document["instances"].items():
        access = ", ".join(f"{count} {state}" for state, count in sorted(one["access"].items()))
        age = one.get("success_age_s", one.get("checked_age_s"))
        lapse = one.get("first_lapse_s")
        state = str(one["state"])
        holder = one.get("holder") or (one.get("detail") if state == "standby" else "") or ""
        rows.append(
            (
                name,
                Text(state, style=RUNNER_STATES.get(state, "")),
                access or "-",
                "never" if age is None else f"{short_duration(max(0, age))} ago",
                "-" if lapse is None else f"in {short_duration(lapse)}" if lapse >= 0 else Text("lapsed", style="red"),
                str(one.get("api_key_expires_at", "-"))[:10],
                visible(str(holder)),
            )
        )
    headings = ("instance", "state", "clusters", "listed", "first token ends", "API key ends", "")
    console.print(table_of(headings, rows, console=console, optional=("API key ends", "first token ends")))
    _print_members(document.get("members", []), now, console=console)


def _print_members(members: list[dict[str, Any]], now: datetime, *, console: Console) -> None:
    """Print the living processes if there are several, or if one is not as it should be."""
    if len(members) <= 1 and not any(_remark(one) for one in members):
        return
    rows = [
        (
            Text(visible(one["id"]), style="bold" if one.get("me") else ""),
            visible(str(one["version"])),
            visible(str(one["configuration"])),
            _age(one.get("since"), now),
            _remark(one),
            visible(", ".join(one["leads"])) or "-",
        )
        for one in members
    ]
    console.print()
    headings = ("process", "version", "configuration", "up", "", "leads")
    console.print(table_of(headings, rows, console=console, optional=("version", "up", "configuration")))


def _remark(one: dict[str, Any]) -> Text:
    if one["draining"]:
        return Text("ends", style="yellow")
    if "rejected_at" in one:
        return Text("rejected its configuration", style="red")
    return Text("older configuration", style="red") if "outdated_since" in one else Text("")


def _time(value: object) -> str:
    moment = moment_of(value)
    return visible(str(value)) if moment is None else time_for_people(moment)


def _age(since: object, now: datetime) -> str:
    from palette_sync.core.documents import time_or_none

    began = time_or_none({"since": since}, "since") if since else None
    return "-" if began is None else short_duration(max(0, int((now - began).total_seconds())))
