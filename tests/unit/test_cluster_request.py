"""Requests about one cluster: their arguments, what they answer, and which cluster a name means."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from builders import HOUR, MINUTE, NOW, OIDC, SERVER, access, by_uid, head, record, sealed_credential
from palette_sync.core.cluster_answer import ClusterNow, looked, paused, refusal, resumed, rotated
from palette_sync.core.cluster_request import (
    LONGEST_PAUSE,
    ClusterRequest,
    decode_cluster_request,
    encode_cluster_request,
)
from palette_sync.core.documents import DocumentError
from palette_sync.core.kubeconfig_file import kubeconfig_document, kubeconfig_problem
from palette_sync.core.model import (
    AccessState,
    ClusterMemory,
    ClusterRecord,
    InstanceState,
    PaletteFacts,
    Pause,
    RetiredSecret,
    Secret,
)
from palette_sync.core.named import full_name, named
from palette_sync.core.pause import PAUSE_TAG
from palette_sync.core.reasons import Reason

PAUSE = Pause("it moves", "anna", NOW - HOUR)


@pytest.mark.parametrize(
    "request_",
    [ClusterRequest("c1"), ClusterRequest("c1", revoke=True), ClusterRequest("c1", reason="a", lasts=2 * HOUR)],
)
def test_a_request_is_read_back(request_: ClusterRequest) -> None:
    assert decode_cluster_request(encode_cluster_request(request_)) == request_


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"uid":"a b"}', '{"uid":"c1","for_s":0}', f'{{"uid":"c1","for_s":{367 * 86400}}}'],
)
def test_another_request_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        decode_cluster_request(text)


def test_a_pause_is_short_one_line_and_in_whole_seconds() -> None:
    asked = ClusterRequest("c1", reason="one\ntwo" + "x" * 500, lasts=LONGEST_PAUSE)
    pause = asked.pause(by="anna", now=NOW.replace(microsecond=5))

    assert pause.reason.startswith("one two")
    assert len(pause.reason) <= 200
    assert (pause.since, pause.until) == (NOW, NOW + LONGEST_PAUSE)
    assert ClusterRequest("c1", reason="a").pause(by="", now=NOW).until is None


# -- answers ----------------------------------------------------------------------------------------------------------


def now_of(one: ClusterRecord | None = None, memory: ClusterMemory | None = None, **token: Any) -> ClusterNow:
    credential = token.pop("credential") if "credential" in token else sealed_credential(**token)
    return ClusterNow(one or record(), credential, memory, version=7, now=NOW)


def test_only_what_verifies_and_is_published_is_found() -> None:
    state = InstanceState(head=head(version=7), records=by_uid(record()), credentials={"c1": sealed_credential()})

    found = ClusterNow.find(state, "c1", NOW)
    assert found is not None
    assert (found.version, found.credential) == (7, sealed_credential())
    assert ClusterNow.find(replace(state, trusted=False), "c1", NOW) is None
    assert ClusterNow.find(state, "c2", NOW) is None
    assert ClusterNow.find(None, "c1", NOW) is None


def test_what_cannot_be_done_now_is_refused_with_what_to_do() -> None:
    assert refusal(now_of(), rotate=True) is None
    assert refusal(now_of(record(auth=OIDC)), rotate=False) is None
    stopped = refusal(now_of(record(pause=PAUSE)), rotate=False)
    tagged = refusal(now_of(record(palette=PaletteFacts("Running", tags=(PAUSE_TAG,)))), rotate=True)
    oidc = refusal(now_of(record(auth=OIDC)), rotate=True)
    none = refusal(now_of(credential=None), rotate=True)

    remove = f"remove the tag {PAUSE_TAG} in Palette; the next listing sees that"
    texts = [one.text for one in (stopped, tagged, oidc, none) if one is not None]
    assert texts == [
        "alpha-web: paused by anna: it moves; run `palette-sync resume alpha-web` first",
        f"alpha-web: paused: it has the tag {PAUSE_TAG} in Palette; {remove}",
        "alpha-web: users log in with their own OIDC token, so there is no token to rotate",
        "alpha-web: there is no token to rotate yet (ready (Verified)); `palette-sync resync` tries now",
    ]
    assert stopped is not None
    assert not stopped.done
    assert stopped.document["pause"] == {"reason": "it moves", "by": "anna", "since": "2026-03-01T11:00:00Z"}


def test_a_look_says_what_is_and_what_changed() -> None:
    proven = ClusterMemory(verified_at=NOW)
    one = looked(now_of(memory=proven), since=NOW, effects=["repaired"])
    assert (one.done, one.text) == (True, "alpha-web: ready (Verified); repaired; version 7")
    assert looked(now_of(memory=proven), since=NOW, effects=[]).text.endswith("nothing changed; version 7")

    failed = record(access=access(AccessState.FAILED, Reason.UNREACHABLE, "no answer"))
    one = looked(now_of(failed, ClusterMemory(tried_at=NOW)), since=NOW, effects=["failed"])
    assert (one.done, one.text) == (False, "alpha-web: failed (Unreachable): no answer; failed; version 7")


@pytest.mark.parametrize(
    ("state", "memory", "words"),
    [
        (AccessState.READY, None, "it was not looked at"),
        (AccessState.READY, ClusterMemory(verified_at=NOW - MINUTE), "it was not looked at"),
        (AccessState.FAILED, ClusterMemory(hung=True), "has not answered yet"),
        (AccessState.PENDING, None, "nothing to look at yet"),
    ],
)
def test_a_cluster_that_was_not_looked_at_is_no_success(
    state: AccessState, memory: ClusterMemory | None, words: str
) -> None:
    one = looked(now_of(record(access=access(state)), memory), since=NOW, effects=[])
    assert not one.done
    assert words in one.text


def test_a_rotation_says_what_became_of_both_tokens() -> None:
    proven = ClusterMemory(verified_at=NOW)
    left = replace(proven, retired=(RetiredSecret("s", "u", NOW),))

    def text(memory: ClusterMemory, *, issued: bool = True, revoke: bool = False, **token: Any) -> tuple[bool, str]:
        one = rotated(now_of(memory=memory, **token), issued=issued, revoke=revoke, since=NOW)
        return one.done, one.text

    published = "alpha-web: a new token is published (version 7); it ends at 2026-03-02 11:00:00 UTC"
    assert text(proven) == (True, f"{published}; the former one lives until its own end")
    assert text(proven, revoke=True) == (True, f"{published}; the former one is revoked")
    done, failed = text(left, revoke=True)
    assert (done, "is not revoked yet" in failed) == (False, True)
    assert "it never ends" in text(proven, expires_at=None)[1]
    assert text(proven, issued=False) == (
        False,
        "alpha-web: no new token; the former one stays published: ready (Verified)",
    )
    assert text(ClusterMemory(), issued=False)[1].endswith("cannot be listed")
    assert not text(proven, credential=None)[0]


def test_a_pause_says_when_the_token_lapses_in_it() -> None:
    assert paused(now_of(record(pause=PAUSE))).text.endswith("lapses at 2026-03-02 11:00:00 UTC")
    short = replace(PAUSE, until=NOW + HOUR)
    assert (
        paused(now_of(record(pause=short))).text == "alpha-web: paused by anna, until 2026-03-01 13:00:00 UTC: it moves"
    )
    assert paused(now_of()).text == "alpha-web: the pause has ended already"


def test_a_resume_fails_while_the_tag_is_there() -> None:
    assert resumed(now_of(), was_paused=True).text == "alpha-web: resumed; ready (Verified)"
    assert resumed(now_of(), was_paused=False).text == "alpha-web: it was not paused; ready (Verified)"
    tagged = resumed(now_of(record(palette=PaletteFacts("Running", tags=(PAUSE_TAG,)))), was_paused=True)
    assert (tagged.done, "remove the tag" in tagged.text) == (False, True)


# -- names ------------------------------------------------------------------------------------------------------------

WEB = record("c1", "alpha-web", title="web (a)")
SHOP = record("c2", "alpha-shop", title="shop")
BETA = record("c1", "beta-shop", title="shop", instance="beta")
ALL = (WEB, SHOP, BETA)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("alpha-web", [WEB]),
        ("c2", [SHOP]),
        ("c1", [WEB, BETA]),
        ("shop", [SHOP, BETA]),
        ("beta/shop", [BETA]),
        ("beta/c1", [BETA]),
        ("alpha/alpha-web", [WEB]),
        ("beta/alpha-web", []),
        ("web (a)", [WEB]),
        ("", []),
    ],
)
def test_a_cluster_is_found_by_name_uid_title_and_instance(wanted: str, found: list[ClusterRecord]) -> None:
    assert list(named(wanted, ALL).found) == found


def test_near_names_are_offered_in_the_form_that_was_typed() -> None:
    assert named("alpha-wep", ALL).near[0] == "alpha-web"
    assert named("ALPHA-SHOP", ALL).near[0] == "alpha-shop"
    assert named("beta/beta-shap", ALL).near[0] == "beta/beta-shop"
    assert named("zzzzzz", ALL).near == ()
    assert full_name(BETA) == "beta/c1"


def test_a_name_wins_over_the_uid_of_another_cluster() -> None:
    odd = record("alpha-web", "alpha-odd")
    assert named("alpha-web", [odd, WEB]).found == (WEB,)


# -- kubeconfig -------------------------------------------------------------------------------------------------------


def test_a_kubeconfig_has_what_kubectl_needs() -> None:
    server = replace(SERVER, tls_server_name="api.web")
    found = kubeconfig_document(record(server=server), Secret("a-token"))

    assert found == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "alpha-web",
                "cluster": {
                    "server": SERVER.url,
                    "certificate-authority-data": SERVER.ca_data,
                    "tls-server-name": "api.web",
                },
            }
        ],
        "users": [{"name": "alpha-web-read-only", "user": {"token": "a-token"}}],
        "contexts": [{"name": "alpha-web", "context": {"cluster": "alpha-web", "user": "alpha-web-read-only"}}],
        "current-context": "alpha-web",
    }
    plain = kubeconfig_document(record(server=replace(SERVER, ca_data=None)), Secret("a"))
    assert plain["clusters"] == [{"name": "alpha-web", "cluster": {"server": SERVER.url}}]


FAILED = access(AccessState.FAILED, Reason.CONFLICT, "theirs")


@pytest.mark.parametrize(
    ("one", "expires_at", "words"),
    [
        (record(), NOW + HOUR, ""),
        (record(auth=OIDC), NOW + HOUR, "their own OIDC token of https://issuer.example"),
        (record(), NOW, "its token lapsed at 2026-03-01 12:00:00 UTC"),
        (
            record(server=None, access=access(AccessState.FAILED, Reason.UNREACHABLE)),
            None,
            "no access to it: Unreachable",
        ),
        (
            record(access=access(AccessState.FAILED, Reason.CONFLICT, "theirs")),
            None,
            "no access to it: Conflict: theirs",
        ),
    ],
)
def test_a_kubeconfig_needs_access_and_a_token_that_lives(
    one: ClusterRecord, expires_at: datetime | None, words: str
) -> None:
    problem = kubeconfig_problem(one, sealed_credential(expires_at=expires_at), NOW)
    assert problem == words or (words and words in problem)


def test_without_a_token_there_is_no_kubeconfig() -> None:
    assert "no access" in kubeconfig_problem(record(), None, NOW)
