"""What a pass works on, and why: the first reason that holds is told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from palette_sync.core.due import due
from palette_sync.core.model import Access, AccessState, AuthMode, OidcAuth, PaletteFacts, RetiredSecret
from unit.builders import NOW, candidate, cluster, credential, record, work

HOUR = timedelta(hours=1)
OIDC = OidcAuth("spectrocloud", "https://issuer", "client")
FAILED = Access(AccessState.FAILED, "Unreachable", "", NOW)
BACKOFF = work(failures=2, retry_at=NOW + timedelta(minutes=20))


def why(**given: Any) -> str | None:
    resync = given.pop("resync", False)
    found = due(candidate(**given), now=NOW, verify_interval=HOUR, resync=resync)
    return found.reason if found else None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param({}, None, id="a healthy cluster costs nothing"),
        pytest.param({"record": None, "credential": None}, "New", id="an unpublished one is new"),
        pytest.param({"record": record(server=None, auth=None), "credential": None}, "NoAccess", id="none was gained"),
        pytest.param({"credential": None}, "NoAccess", id="its credential is missing"),
        pytest.param({"mode": AuthMode.OIDC}, "ModeChanged", id="it is to be OIDC now"),
        pytest.param(
            {"record": record(auth=OIDC), "credential": None}, "ModeChanged", id="it is to be a service account now"
        ),
        pytest.param({"record": record(auth=OIDC), "credential": None, "mode": None}, None, id="auto keeps what works"),
        pytest.param({"desired": "other"}, "ConfigChanged", id="rules or names were configured anew"),
        pytest.param({"work": work(desired=None), "desired": "other"}, None, id="a forgotten fingerprint is no change"),
        pytest.param({"credential": credential(renew_at=NOW)}, "TokenDue", id="the token reached its renewal"),
        pytest.param({"credential": credential(expires_at=NOW)}, "TokenLapsed", id="the token has lapsed"),
        pytest.param({"credential": credential(issued_at=NOW + HOUR)}, "TokenDue", id="the token is from the future"),
        pytest.param(
            {"record": record(auth=OIDC), "credential": credential(renew_at=NOW), "mode": AuthMode.OIDC},
            None,
            id="an OIDC cluster has no token to renew",
        ),
        pytest.param({"cluster": cluster(state="Error")}, "StateChanged", id="Palette's state changed"),
        pytest.param({"cluster": cluster(health="UnHealthy")}, "StateChanged", id="Palette's health changed"),
        pytest.param({"record": record(palette=PaletteFacts("Error"))}, "StateChanged", id="it recovered"),
        pytest.param({"work": work(retired=(RetiredSecret("s", "u", NOW),))}, "OverlapOver", id="an overlap is over"),
        pytest.param({"work": work(retired=(RetiredSecret("s", "u", NOW + HOUR),))}, None, id="an overlap still runs"),
        pytest.param({"work": work(failures=1, retry_at=NOW)}, "RetryDue", id="its backoff has passed"),
        pytest.param({"record": record(access=FAILED)}, "RetryDue", id="it failed and nothing is remembered"),
        pytest.param({"work": work(verified_at=NOW - HOUR)}, "VerifyDue", id="the verification came round"),
        pytest.param({"work": work(verified_at=None)}, "VerifyDue", id="it was never verified"),
        pytest.param({"work": BACKOFF}, None, id="a backoff suppresses"),
        pytest.param({"work": BACKOFF, "credential": credential(renew_at=NOW)}, None, id="even a renewal"),
        pytest.param({"work": BACKOFF, "cluster": cluster(state="Error")}, "StateChanged", id="but no change of state"),
        pytest.param({"work": BACKOFF, "desired": "other"}, "ConfigChanged", id="nor of the configuration"),
        pytest.param({"work": BACKOFF, "resync": True}, "RetryDue", id="nor an operator"),
        pytest.param({"work": BACKOFF, "record": None, "credential": None}, None, id="a new one waits too"),
        pytest.param({"work": work(failures=1, retry_at=NOW + HOUR)}, "RetryDue", id="no backoff ends that late"),
        pytest.param({"work": work(failures=1)}, "RetryDue", id="a backoff without end is none"),
        pytest.param({"resync": True}, "Resync", id="an operator asked"),
        pytest.param(
            {"record": None, "credential": None, "cluster": cluster(state="Provisioning"), "resync": True},
            None,
            id="first access waits for Running",
        ),
        pytest.param(
            {"cluster": cluster(state="Error"), "record": record(palette=PaletteFacts("Error", "Healthy"))},
            None,
            id="existing access lives on in every state",
        ),
        pytest.param({"cluster": cluster(paused=True), "resync": True}, None, id="a paused cluster is left alone"),
    ],
)
def test_due(given: dict[str, Any], reason: str | None) -> None:
    assert why(**given) == reason


@pytest.mark.parametrize(
    ("given", "issues"),
    [
        ({"record": None, "credential": None}, True),
        ({"credential": credential(renew_at=NOW)}, True),
        ({"credential": credential(expires_at=NOW)}, True),
        ({"record": record(auth=OIDC), "credential": None}, True),
        ({"mode": AuthMode.OIDC}, False),
        ({"work": work(verified_at=None)}, False),
        ({"desired": "other"}, False),
    ],
)
def test_only_what_lacks_a_token_or_outgrew_it_asks_for_one(given: dict[str, Any], *, issues: bool) -> None:
    found = due(candidate(**given), now=NOW, verify_interval=HOUR)

    assert found is not None
    assert found.issue is issues


def test_a_lost_record_of_an_oidc_cluster_needs_no_token() -> None:
    found = due(
        candidate(record=record(auth=None, server=None), credential=None, mode=AuthMode.OIDC),
        now=NOW,
        verify_interval=HOUR,
    )

    assert found is not None
    assert found.reason == "NoAccess"


def test_a_state_without_health_reads_well() -> None:
    found = due(candidate(cluster=cluster(state="Unknown", health="")), now=NOW, verify_interval=HOUR)

    assert found is not None
    assert found.message == "Palette says Unknown, before Running/Healthy"
