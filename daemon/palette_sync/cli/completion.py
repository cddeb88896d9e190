"""Completes the names of instances and clusters in a shell, from the configuration and from the configured Redis.

Whoever presses the tab key waits, so Redis has a short time to answer. Whatever goes wrong, there is no completion and
no message.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from palette_sync.assembly.diagnosis import Diagnosis

WITHIN = 1.0  # seconds
# A completed word becomes a part of a command line, and zsh even evaluates it. The records are not verified here, so
# somebody who can write to Redis chooses their names. Every name that palette-sync gives has this form.
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def complete_instance(ctx: typer.Context, incomplete: str) -> list[str]:
    """The configured and the published instances."""

    async def names(diagnosis: Diagnosis) -> list[str]:
        return (await diagnosis.instances(None))[0]

    return _matching(ctx, names, incomplete)


def complete_cluster(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the published clusters, of the instances that are named before."""

    async def names(diagnosis: Diagnosis) -> list[str]:
        import orjson

        found: list[str] = []
        instances, published = await diagnosis.instances(ctx.params.get("instance"))
        store = diagnosis.store
        for instance in instances:
            if instance not in published:
                continue
            # A reader's Redis user may run this one.
            records = await store.link.command("read names", "HGETALL", store.keys.clusters(instance))
            for record in records.values():
                with suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    found.append(str(orjson.loads(record)["name"]))
        return found

    return _matching(ctx, names, incomplete)


def _matching(ctx: typer.Context, names: Callable[[Diagnosis], Awaitable[list[str]]], incomplete: str) -> list[str]:
    found: list[str] = []
    with suppress(Exception):  # a traceback in the middle of a command line helps nobody
        found = asyncio.run(_within(_where(ctx), names))
    return sorted({name for name in found if name.startswith(incomplete) and _SAFE.fullmatch(name)})


def _where(ctx: typer.Context) -> Any:
    from palette_sync.cli.diagnosis import Where
    from palette_sync.cli.places import DEFAULT_CONFIG

    given = ctx.params
    config = given.get("config") or DEFAULT_CONFIG
    return Where(Path(config), given.get("redis") or "", given.get("prefix") or "")


async def _within(where: Any, names: Callable[[Diagnosis], Awaitable[list[str]]]) -> list[str]:
    from palette_sync.assembly.diagnosis import open_diagnosis

    async with asyncio.timeout(WITHIN), open_diagnosis(where.settings()) as diagnosis:
        return await names(diagnosis)
