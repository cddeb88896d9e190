"""The page as a pure function of what the daemon knows: what a look at it shows, and that foreign text stays text."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from builders import HOUR, INSTANCE, MINUTE, NOW, OIDC, TEAM_B, access, by_uid, head, record, records, sealed_credential
from page_world import world
from palette_sync.core.documents import format_time
from palette_sync.core.done import Done
from palette_sync.core.history import FormerVersion, VersionChange
from palette_sync.core.model import (
    AccessState,
    ClusterMemory,
    InstanceState,
    Location,
    PaletteFacts,
    Project,
    RetiredSecret,
    ScopeStatus,
    Server,
)
from palette_sync.core.objects import Desired
from palette_sync.core.problems import Problem
from palette_sync.core.reasons import Reason
from palette_sync.core.rows import rows_of
from palette_sync.page.cluster import find, token_life, view
from palette_sync.page.overview import MOST_HELD, MOST_TAGS, analyse, clusters_url, table
from palette_sync.page.query import PAGE_SIZE, Query
from palette_sync.page.render import (
    code_words,
    render_cluster,
    render_configuration,
    render_message,
    render_overview,
    render_timeline,
    web_link,
)
from palette_sync.page.timeline import latest_changes, timeline

UNREACHABLE = access(AccessState.FAILED, Reason.UNREACHABLE, "no answer from https://10.0.0.2:6443")
DESIRED = Desired("backstage-system", "backstage-sa", "backstage-sa-token", "read-only", "read-only-binding", rules=())
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}\x1b[2J\u202e"""


class Page(HTMLParser):
    """A page as a browser reads it: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.elements if tag == "a"]

    def names(self) -> list[str]:
        """The path of each cluster in the table."""
        return [link for link in self.links() if link.startswith("/clusters/")]


def instance_state(**changes: Any) -> InstanceState:
    facts: dict[str, Any] = {
        "head": head(version=7),
        "records": by_uid(
            record(), record("c2", "alpha-db", project=TEAM_B, access=UNREACHABLE, server=None, auth=None)
        ),
        "credentials": {"c1": sealed_credential()},
        "memory": {"c2": ClusterMemory(failures=2, retry_at=NOW + MINUTE), "c1": ClusterMemory(verified_at=NOW - HOUR)},
    }
    return InstanceState(**(facts | changes))


def document(**changes: Any) -> dict[str, Any]:
    one = {
        "state": "leading",
        "ready": True,
        "succeeded_at": format_time(NOW - 5 * MINUTE),
        "next_listing_at": format_time(NOW + 5 * MINUTE),
    }
    return {"state": "running", "config": {}, "instances": {INSTANCE: one | changes}}


def overview(found: InstanceState, query: str = "", **changes: Any) -> Page:
    values = dict(pair.split("=") for pair in query.split("&") if pair)
    analysis = analyse(document(**changes), {INSTANCE: found}, now=NOW)
    return Page(render_overview(analysis, Query.of(values), now=NOW, state="running"))


def cluster_page(state: InstanceState, uid: str = "c1", history: Any = ((), ()), remark: str = "") -> Page:
    row = find(state, uid, now=NOW)
    assert row is not None
    return Page(render_cluster(view(row, state, history, DESIRED), now=NOW, remark=remark))


# -- what one look shows ----------------------------------------------------------------------------------------------


def test_a_problem_has_since_by_itself_what_to_do_and_the_command() -> None:
    text = overview(instance_state()).text

    assert "Something is wrong" in text
    assert "1 cluster has no access (Unreachable): alpha-db" in text
    assert "since 5h00m ago (2026-03-01 07:00:00 UTC)" in text
    assert f"by itself {Reason.UNREACHABLE.by_itself} Next: in 1m00s ." in text
    assert "palette-sync show alpha-db" in text


def test_all_is_well_is_said() -> None:
    page = overview(instance_state(records=by_uid(record())))

    assert "Nothing is wrong" in page.text
    assert not any("problem" in str(attributes.get("class")) for tag, attributes in page.elements if tag == "article")


def test_a_notice_is_no_alarm() -> None:
    soon = format_time(NOW + 5 * 24 * HOUR)
    assert "Everything works, but" in overview(instance_state(records={}), api_key_expires_at=soon).text


def test_an_instance_shows_its_last_success_next_listing_version_and_clusters() -> None:
    text = overview(instance_state()).text

    assert "alpha leading" in text
    assert "last success 5m00s ago" in text
    assert "next listing in 5m00s" in text
    assert "version 7" in text
    assert "1 failed 1 ready 1 Unreachable" in text


def test_a_failed_pass_is_named_at_its_instance() -> None:
    assert "The last pass failed: HTTP 503" in overview(instance_state(), error="HTTP 503").text


def test_a_standby_shows_what_redis_holds_and_who_leads() -> None:
    page = overview(instance_state(), state="standby", detail="alpha is held by process 7 on host-b")

    assert "Another process leads; this is what Redis holds. alpha is held by process 7 on host-b" in page.text
    assert "1 cluster has no access (Unreachable): alpha-db" in page.text
    assert len(page.names()) == 2


def test_held_records_are_shown_with_the_command_that_releases_them() -> None:
    absence = {"since": format_time(NOW - HOUR), "reason": "PruneHeld", "message": "all are gone"}
    until = {"until": format_time(NOW + HOUR)}
    state = instance_state(status={"held": {"c1": absence | until, "c2": absence}})
    text = overview(state).text

    assert "2 records held" in text
    assert "palette-sync resync --allow-prune --instance alpha" in text
    assert "alpha-web : PruneHeld, all are gone; first missed 1h00m ago , dropped in 1h00m" in text
    assert "alpha-db : PruneHeld, all are gone; first missed 1h00m ago , kept until it is released" in text


def test_of_many_held_records_the_rest_is_counted() -> None:
    many = records(MOST_HELD + 3)
    absence = {"since": format_time(NOW - HOUR), "reason": "PruneHeld", "message": "gone"}
    assert "and 3 more" in overview(instance_state(records=many, status={"held": dict.fromkeys(many, absence)})).text


def test_a_project_that_cannot_be_listed_is_shown() -> None:
    failing = ScopeStatus("team-a", listed_at=NOW - 2 * HOUR, error="HTTP 500", since=NOW - HOUR)
    text = overview(instance_state(scopes={"p-a": failing, "p-b": ScopeStatus("team-b", listed_at=NOW)})).text

    assert (
        "Projects that cannot be listed alpha team-a: HTTP 500; failed first 1h00m ago , last listed 2h00m ago" in text
    )


@pytest.mark.parametrize(
    ("reason", "clusters", "url"),
    [
        (Reason.PRUNE_HELD, ("a", "b"), "#held-heading"),
        (Reason.UNREACHABLE, ("a",), "/?name=a&instance=alpha#clusters"),
        (Reason.UNREACHABLE, ("a", "b"), "/?instance=alpha&reason=Unreachable#clusters"),
        (Reason.TOKEN_LAPSED, ("a", "b"), "/?instance=alpha&sort=expiry#clusters"),
    ],
)
def test_a_problem_leads_to_its_clusters(reason: Reason, clusters: tuple[str, ...], url: str) -> None:
    assert clusters_url(Problem(reason, INSTANCE, "", clusters=clusters)) == url


def test_several_processes_are_shown_with_what_they_lead_and_what_is_wrong_with_them() -> None:
    first = {"id": "host-1:1:a", "me": True, "version": "1.0", "configuration": "c0ffee", "leads": ["alpha"]}
    second = {**first, "id": "host-2:2:b", "me": None, "leads": [], "outdated_since": "2026-03-01T12:00:00Z"}

    def shown(*members: Any) -> str:
        analysis = analyse({**document(), "members": members}, {}, now=NOW)
        return " ".join(Page(render_overview(analysis, Query(), now=NOW, state="running")).text.split())

    text = shown(first, second)
    assert "host-1:1:a (this one) leads alpha; version 1.0, configuration c0ffee" in text
    assert "host-2:2:b leads nothing" in text
    assert "its configuration has been older than another one since 2026-03-01" in text
    assert "Processes" not in shown(first)


def test_a_daemon_that_has_no_instances_yet_says_so() -> None:
    analysis = analyse({"state": "starting", "instances": {}}, {}, now=NOW)
    text = Page(render_overview(analysis, Query(), now=NOW, state="starting")).text

    assert "The daemon is starting." in text
    assert "Redis has not answered yet" in text
    assert "No cluster is published." in text


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_worst_come_first() -> None:
    assert overview(instance_state()).names() == ["/clusters/alpha/c2", "/clusters/alpha/c1"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("name=PHA-W", ["c1"]),
        ("name=*-d?", ["c2"]),
        ("name=nothing", []),
        ("state=ready", ["c1"]),
        ("reason=Unreachable", ["c2"]),
        ("project=team-b", ["c2"]),
        ("instance=alpha&sort=name", ["c2", "c1"]),
        ("instance=other", []),
        ("sort=nonsense&page=-1", ["c2", "c1"]),
        ("sort=expiry", ["c1", "c2"]),
        ("sort=name&reverse=1", ["c1", "c2"]),
        ("sort=name&reverse=yes", ["c2", "c1"]),
        ("auth=token", ["c1"]),
        ("auth=-", ["c2"]),
        ("tag=prod", ["c1"]),
        ("tag=env:*", ["c1"]),
        ("tag=env", ["c1"]),
        ("tag=env:", ["c1"]),
        ("tag=en?", []),
    ],
)
def test_the_table_filters_and_sorts(query: str, shown: list[str]) -> None:
    palette = PaletteFacts("Running", tags=("env:prod",))
    db = record("c2", "alpha-db", project=TEAM_B, access=UNREACHABLE, server=None, auth=None)
    assert overview(instance_state(records=by_uid(record(palette=palette), db)), query).names() == [
        f"/clusters/alpha/{uid}" for uid in shown
    ]


def test_a_project_is_chosen_by_its_whole_name_whatever_that_is() -> None:
    some = by_uid(record(project=Project("p", "[a-c]*")), record("c2", "alpha-db", project=Project("q", "b")))
    assert overview(instance_state(records=some), "project=[a-c]*").names() == ["/clusters/alpha/c1"]


def test_a_heading_sorts_and_once_more_the_other_way() -> None:
    query = Query.of({"project": "team-a", "sort": "version", "page": "2"})
    assert (query.direction("version"), query.direction("name")) == ("ascending", "")
    assert query.sorted_by("name") == "/?project=team-a&sort=name#clusters"
    assert query.sorted_by("version") == "/?project=team-a&sort=version&reverse=1#clusters"
    back = Query.of({"project": "team-a", "sort": "version", "reverse": "1"})
    assert back.direction("version") == "descending"
    assert back.sorted_by("version") == "/?project=team-a&sort=version#clusters"
    newest = Query(sort="since")
    assert (newest.direction("since"), Query(sort="since", reverse="1").direction("since")) == (
        "descending",
        "ascending",
    )


def test_the_most_frequent_tags_are_offered() -> None:
    some = {
        f"u{at:03}": record(f"u{at:03}", palette=PaletteFacts("Running", tags=("env:prod", f"host:{at:03}")))
        for at in range(3 * MOST_TAGS)
    }
    offered = table(analyse({}, {INSTANCE: InstanceState(records=some)}, now=NOW), Query()).tags
    assert len(offered) == MOST_TAGS
    assert "env:prod" in offered


def test_a_page_holds_a_bounded_number_of_clusters() -> None:
    state = instance_state(records=records(2 * PAGE_SIZE + 1), credentials={}, memory={})
    first, last = overview(state), overview(state, "page=99&name=alpha")

    assert len(first.names()) == PAGE_SIZE
    assert f"1 to {PAGE_SIZE} of {2 * PAGE_SIZE + 1} " in first.text
    assert "/?page=2#clusters" in first.links()
    assert last.names() == ["/clusters/alpha/u00100"]
    assert "page 3 of 3" in last.text
    assert "/?name=alpha&page=2#clusters" in last.links()


@pytest.mark.parametrize("page", ["", "0", "x", "\u0663", "9" * 30])
def test_a_page_number_that_is_none_is_the_first(page: str) -> None:
    assert Query.of({"page": page}).page == 1


def test_a_filter_begins_at_the_first_page_and_keeps_what_was_chosen() -> None:
    query = Query.of({"state": "failed", "page": "3", "sort": "since"})
    assert query.url(project="a&b") == "/?project=a%26b&state=failed&sort=since#clusters"
    assert len(Query.of({"name": "x" * 9000}).name) < 200


def test_a_choice_that_nothing_has_any_more_is_still_offered() -> None:
    nothing = analyse({}, {}, now=NOW)
    assert table(nothing, Query(project="gone", reason="Unreachable")).projects == ["gone"]


@pytest.mark.parametrize(
    ("times", "life"),
    [
        ({}, (4, 45, False)),
        ({"expires_at": NOW - MINUTE, "renew_at": NOW - 2 * MINUTE}, (100, 98, True)),
        ({"issued_at": NOW + HOUR}, (0, 40, False)),
    ],
)
def test_the_life_of_a_token_is_shown_with_its_renewal(times: dict[str, Any], life: tuple[int, int, bool]) -> None:
    state = instance_state(credentials={"c1": sealed_credential(**times)})
    row = find(state, "c1", now=NOW)
    assert row is not None
    found = token_life(row)
    assert found is not None
    assert (found.spent, found.renewal, found.lapsed) == life
    assert ("rect", {"class": "renewal", "x": str(life[1]), "width": "1.5", "height": "8"}) in overview(state).elements


def test_a_token_that_never_ends_has_no_life() -> None:
    assert "never ends" in overview(instance_state(credentials={"c1": sealed_credential(expires_at=None)})).text


# -- one cluster ------------------------------------------------------------------------------------------------------


def test_a_cluster_has_its_facts_reason_and_next_events() -> None:
    text = cluster_page(instance_state(), "c2").text

    assert f"Unreachable: {Reason.UNREACHABLE.meaning}" in text
    assert "no answer from https://10.0.0.2:6443" in text
    assert "project team-b" in text
    assert "in 1m00s (2026-03-01 12:01:00 UTC) : next try, after 2 failed in a row" in text
    assert "palette-sync show c2" in text


def test_a_cluster_with_a_token_has_its_objects_and_what_becomes_of_them() -> None:
    memory = ClusterMemory(
        verified_at=NOW - HOUR,
        generation="backstage-sa-token-2",
        retired=(RetiredSecret("backstage-sa-token-1", "u", NOW + HOUR),),
        legacy=True,
        recheck_at=NOW + MINUTE,
    )
    text = cluster_page(instance_state(memory={"c1": memory})).text

    assert "Last found as wanted 1h00m ago" in text
    assert "Secret backstage-sa-token-2 not known - the published token is bound to it" in text
    assert "Secret backstage-sa-token-1 not known - replaced; deleted after 2026-03-01 13:00 UTC" in text
    assert "palette-sync replace-legacy" in text
    assert "ClusterRoleBinding read-only-binding" in text
    order = ["access is verified again", "the Secret backstage-sa-token-1 is deleted", "is renewed", "lapses if"]
    assert sorted(order, key=text.index) == order


def test_what_was_last_done_to_each_object_is_shown() -> None:
    done = (
        Done("create", "Missing", NOW - 48 * HOUR, ("Namespace", "Secret")),
        Done("update", "RoleDrifted", NOW - HOUR, ("ClusterRole",)),
        Done("issue", "TokenDue", NOW - MINUTE, ("Token",)),
    )
    text = cluster_page(instance_state(memory={"c1": ClusterMemory(verified_at=NOW, done=done)})).text

    assert "Namespace backstage-system created 2d00h ago Missing" in text
    assert "ClusterRole read-only updated 1h00m ago RoleDrifted" in text
    assert "ServiceAccount backstage-sa not known" in text
    assert "Token backstage-sa issued 1m00s ago TokenDue" in text


def test_with_oidc_there_are_no_objects() -> None:
    text = cluster_page(instance_state(records=by_uid(record(auth=OIDC)), credentials={})).text

    assert "OIDC, https://issuer.example" in text
    assert "Objects in the cluster" not in text


def test_a_held_cluster_says_how_to_release_it() -> None:
    absence = {"since": format_time(NOW - HOUR), "reason": "PruneHeld", "message": "all are gone"}
    text = cluster_page(instance_state(status={"held": {"c1": absence}})).text

    assert "Palette no longer lists it: PruneHeld all are gone" in text
    assert "palette-sync resync --allow-prune --instance alpha" in text


def test_the_history_of_a_cluster_is_its_own() -> None:
    was = {"name": "alpha-web", "access": {"state": "failed", "reason": "Unreachable", "message": "no answer"}}
    entries = [FormerVersion(5, NOW - 2 * HOUR, {"c1": None, "c2": None}), FormerVersion(6, NOW - HOUR, {"c1": was})]
    changes = [
        VersionChange(5, NOW - 2 * HOUR, put=frozenset({"c1", "c2"})),
        VersionChange(6, NOW - HOUR, put=frozenset({"c1"})),
        VersionChange(7, NOW - MINUTE, rotated=frozenset({"c1"})),
        VersionChange(8, NOW, drop=frozenset({"c1"})),  # newer than the snapshot at hand
    ]
    state = instance_state()
    row = find(state, "c1", now=NOW)
    assert row is not None
    found = view(row, state, (entries, changes), DESIRED).history
    assert [(one.version, one.what) for one in found] == [(7, "new token"), (6, "failed → ready"), (5, "published")]
    assert "failed → ready Verified" in cluster_page(state, history=(entries, changes)).text


def test_an_unknown_history_is_said() -> None:
    assert "Redis does not answer" in cluster_page(instance_state(), remark="Redis does not answer").text


def test_an_unknown_cluster_is_not_found() -> None:
    assert find(instance_state(), "c9", now=NOW) is None


# -- foreign text -----------------------------------------------------------------------------------------------------


def hostile_state() -> InstanceState:
    """Every field that others fill, filled with what would run in a page that did not escape."""
    palette = PaletteFacts(
        HOSTILE, HOSTILE, cloud_type=HOSTILE, tags=(HOSTILE,), location=Location(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    )
    one = record(
        name=HOSTILE,
        title=HOSTILE,
        project=Project("p", HOSTILE),
        server=Server(HOSTILE),
        palette=palette,
        access=access(AccessState.FAILED, Reason.UNREACHABLE, HOSTILE),
        kubernetes_version=HOSTILE,
        dashboard_url="javascript:alert(3)",
    )
    absence = {"since": format_time(NOW), "reason": "PruneHeld", "message": HOSTILE}
    memory = ClusterMemory(failures=1, generation=HOSTILE, retired=(RetiredSecret(HOSTILE, "u", NOW + HOUR),))
    return instance_state(
        records=by_uid(one, replace(one, uid="c2", auth=replace(OIDC, issuer_url=HOSTILE))),
        memory={"c1": memory},
        status={"held": {"c1": absence}},
        scopes={"p": ScopeStatus(HOSTILE, error=HOSTILE, since=NOW)},
        problems=(HOSTILE,),
        trusted=False,
    )


def hostile_pages() -> dict[str, str]:
    state = hostile_state()
    changed = {"error": HOSTILE, "detail": HOSTILE, "state": HOSTILE, "api_key_name": HOSTILE}
    member = {"id": HOSTILE, "version": HOSTILE, "configuration": HOSTILE, "leads": [HOSTILE], "draining": True}
    members = [{**member, "outdated_since": HOSTILE}, {**member, "rejected_at": format_time(NOW)}]
    rejected = {
        **document(**changed),
        "config": {"rejected": [HOSTILE]},
        "orphaned": [HOSTILE],
        "members": members,
        "strangers": [{"id": HOSTILE}],
    }
    analysis = analyse(rejected, {INSTANCE: state}, now=NOW)
    hostile_query = Query(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    hostile_world = world(HOSTILE)
    days = {INSTANCE: timeline(hostile_world.slots, now=NOW)}
    was = {"name": HOSTILE, "access": {"state": HOSTILE, "reason": HOSTILE, "message": HOSTILE}}
    pages = {
        "overview": render_overview(analysis, Query(), now=NOW, state=HOSTILE),
        "filtered": render_overview(analysis, hostile_query, now=NOW, state="running"),
        "timelines": render_timeline(days, "", None, now=NOW),
        "timeline": render_timeline(days, INSTANCE, latest_changes(hostile_world.state, *hostile_world.past), now=NOW),
        "configuration": render_configuration(hostile_world.settings, now=NOW),
        "message": render_message(HOSTILE, HOSTILE, now=NOW),
    }
    for row in rows_of(state, NOW):
        entries = [
            FormerVersion(6, NOW, {row.record.uid: was}),
            FormerVersion(5, NOW, {row.record.uid: was | {"x": 1}}),
        ]
        found = view(row, state, (entries, ()), replace(DESIRED, namespace=HOSTILE))
        pages[row.record.uid] = render_cluster(found, now=NOW, remark="")
    return pages


@pytest.mark.parametrize(
    "name", ["overview", "filtered", "timelines", "timeline", "configuration", "message", "c1", "c2"]
)
def test_foreign_text_is_text_and_nothing_else(name: str) -> None:
    html = hostile_pages()[name]
    page = Page(html)

    assert "alert(1)" in page.text, "the text is shown"
    assert "{{ 7*7 }}" in page.text, "and is no template"
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert len(scripts) == 1
    assert str(scripts[0]["src"]).startswith("/static/")
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on") or key == "style"]
    assert not [link for link in page.links() if not link.startswith(("/", "#"))]
    assert not [one for one in html if not one.isprintable() and one != "\n"]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x", "//x", "http://x", "", None]
)
def test_only_https_is_a_link(url: str | None) -> None:
    assert web_link(url) == ""
    assert web_link("https://palette.example/x") == "https://palette.example/x"


def test_backquotes_mark_code_and_nothing_else() -> None:
    assert code_words("run `a <b>` & see") == "run <code>a &lt;b&gt;</code> &amp; see"
