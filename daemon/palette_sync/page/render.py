"""HTML of the page's values.

Every value is escaped. Names and messages come from Palette and from clusters, so control characters and bidirectional
marks are removed too, as the commands do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from palette_sync import __version__
from palette_sync.core.documents import format_time
from palette_sync.core.durations import ago, time_for_people, until
from palette_sync.core.rows import SORTS
from palette_sync.core.text import visible
from palette_sync.page.cluster import token_life
from palette_sync.page.overview import clusters_url, table, verdict
from palette_sync.page.timeline import changes_text, pass_kind, slot_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from palette_sync.core.history import Transition
    from palette_sync.page.cluster import ClusterView
    from palette_sync.page.configuration import Configuration
    from palette_sync.page.overview import Analysis
    from palette_sync.page.query import Query
    from palette_sync.page.timeline import Timeline

# The pages that show the navigation, with their place in it.
_PLACES = {
    "overview.html": "/",
    "cluster.html": "",
    "timeline.html": "/timeline",
    "configuration.html": "/configuration",
}
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page. Its `name` changes with its content, so that browsers may keep it for ever."""

    name: str
    content_type: str
    body: bytes


@cache
def assets() -> dict[str, Asset]:
    """The files of the page by suffix: `css`, `js`, `svg`."""
    found = {}
    for suffix, content_type in _TYPES.items():
        body = files("palette_sync.page").joinpath("static", f"page.{suffix}").read_bytes()
        name = f"page-{hashlib.sha256(body).hexdigest()[:16]}.{suffix}"
        found[suffix] = Asset(name, content_type, body)
    return found


def render_overview(
    analysis: Analysis,
    query: Query,
    *,
    now: datetime,
    state: str,
    days: Mapping[str, Timeline] | None = None,
    form_key: str = "",
) -> str:
    """`state` is the daemon's: starting, running, stopping. `days` are the timelines by instance.

    With a `form_key` the page has buttons.
    """
    return _render(
        "overview.html",
        now=now,
        form_key=form_key,
        daemon_state=state,
        days=days or {},
        analysis=analysis,
        verdict=verdict(analysis.problems),
        query=query,
        table=table(analysis, query),
    )


def render_cluster(
    view: ClusterView, *, now: datetime, remark: str = "", form_key: str = "", acts: bool = False
) -> str:
    """`remark`: what could not be read. `acts`: the page has buttons for this cluster."""
    return _render("cluster.html", now=now, form_key=form_key, view=view, row=view.row, remark=remark, acts=acts)


def render_timeline(
    days: Mapping[str, Timeline],
    instance: str,
    changes: Sequence[Transition] | None,
    *,
    now: datetime,
    form_key: str = "",
) -> str:
    """The timelines of all instances, or the details of one. `changes` is None where they are not known."""
    return _render("timeline.html", now=now, form_key=form_key, days=days, instance=instance, changes=changes)


def render_configuration(found: Configuration, *, now: datetime, form_key: str = "") -> str:
    return _render("configuration.html", now=now, form_key=form_key, found=found)


def render_message(title: str, text: str, *, now: datetime) -> str:
    """A page that says one thing, such as why there is nothing to see."""
    return _render("message.html", now=now, title=title, text=text)


def render_login(*, now: datetime, wrong: bool = False) -> str:
    """The page that asks for the token. `wrong`: the one that was given is not right."""
    return _render("login.html", now=now, wrong=wrong)


def _render(template: str, *, now: datetime, form_key: str = "", **values: Any) -> str:
    page = {
        "now": now,
        "form_key": form_key,
        "version": __version__,
        "here": _PLACES.get(template),
        "assets": {kind: one.name for kind, one in assets().items()},
    }
    return _environment().get_template(template).render(page, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("palette_sync.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": ago,
        "until": until,
        "utc": time_for_people,
        "iso": format_time,
        "web_link": web_link,
        "code_words": code_words,
    }
    environment.globals |= {
        "token_life": token_life,
        "clusters_url": clusters_url,
        "changes_text": changes_text,
        "pass_kind": pass_kind,
        "slot_text": slot_text,
        "sorts": SORTS,
    }
    return environment


def _shown(value: object) -> object:
    """A value as it is escaped: absent as nothing, foreign text without what is not printable."""
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def code_words(text: str) -> Markup:
    """A text of palette-sync in which backquotes mark what is typed as it is."""
    parts = [escape(visible(part)) for part in text.split("`")]
    return Markup().join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def web_link(url: str | None) -> str:
    """A foreign URL if it may be a link, else "": a `javascript:` URL would run in the page."""
    return url if url and url.startswith("https://") else ""
