"""The shared types keep their promises: secrets do not show, and credentials report whether they are valid."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import FrozenInstanceError, dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, TEAM_A, cluster, listing, sealed_credential, tenant_listing
from palette_sync.core.model import ClusterKey, Credential, Secret, Server, ca_data_of, ca_pem_of

CANARY = "canary-4711"


@dataclass(frozen=True, slots=True)
class Holder:
    token: Secret


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(str(Secret(CANARY)), id="as text"),
        pytest.param(repr(Secret(CANARY)), id="as repr"),
        pytest.param(f"{Secret(CANARY)}", id="formatted"),
        pytest.param(f"{Secret(CANARY):>40}", id="formatted with a width"),
        pytest.param(f"{Secret(CANARY)!r:>40}", id="its repr formatted with a width"),
        pytest.param("%s %r" % (Secret(CANARY), Secret(CANARY)), id="formatted the old way"),  # noqa: UP031 - logging does
        pytest.param(repr(Holder(Secret(CANARY))), id="inside a dataclass"),
        pytest.param(repr({Secret(CANARY): [Secret(CANARY)]}), id="inside containers"),
        pytest.param(repr(Credential(Secret(CANARY), NOW, NOW)), id="inside a credential"),
        pytest.param(repr(sealed_credential(sealed=CANARY)), id="a sealed credential hides even what is sealed"),
    ],
)
def test_a_secret_never_shows_itself(shown: str) -> None:
    assert CANARY not in shown


def test_a_secret_does_not_show_in_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("somebody").warning("token %s %r", Secret(CANARY), [Secret(CANARY)])

    assert caplog.messages == ["token *** [Secret(***)]"]


def test_only_reveal_returns_the_value_of_a_secret() -> None:
    assert Secret(CANARY).reveal() == CANARY


@pytest.mark.parametrize(
    "duplicate", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickled", "copied", "deeply copied"]
)
def test_a_secret_cannot_be_pickled_or_copied(duplicate: object) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        duplicate(Secret(CANARY))  # type: ignore[operator]

    assert CANARY not in str(caught.value)


@given(st.text(), st.text())
def test_secrets_are_equal_when_their_values_are_and_never_equal_to_a_bare_string(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one) != one
    assert (hash(Secret(one)) == hash(Secret(other))) is (one == other)


@pytest.mark.parametrize(("value", "filled"), [("", False), ("x", True)], ids=["empty is false", "filled is true"])
def test_a_secret_is_true_when_it_holds_something(value: str, *, filled: bool) -> None:
    assert bool(Secret(value)) is filled


@pytest.mark.parametrize(
    ("expires_in", "alive"),
    [
        pytest.param(timedelta(seconds=1), True, id="a token is valid until it expires"),
        pytest.param(timedelta(0), False, id="at its end it is dead"),
        pytest.param(timedelta(seconds=-1), False, id="it is invalid once it has expired"),
        pytest.param(None, True, id="a token that never expires is valid"),
    ],
)
def test_a_credential_is_valid_until_it_expires(expires_in: timedelta | None, *, alive: bool) -> None:
    expires_at = None if expires_in is None else NOW + expires_in

    assert Credential(Secret("t"), NOW, NOW, expires_at).alive(NOW) is alive
    assert sealed_credential(expires_at=expires_at).alive(NOW) is alive


@pytest.mark.parametrize(
    ("state", "gone"),
    [
        ("Deleting", True),
        ("Deleted", True),
        ("Running", False),
        ("Error", False),
        ("", False),
        ("A word of tomorrow", False),
    ],
    ids=lambda value: str(value) or "no state",
)
def test_only_the_states_deleting_and_deleted_mean_gone(state: str, *, gone: bool) -> None:
    assert cluster(state=state).gone is gone


def test_a_listing_is_complete_only_without_error_and_with_permission() -> None:
    assert listing(TEAM_A).complete
    assert not listing(TEAM_A, error="503").complete
    assert not tenant_listing(not_permitted=True).complete


def test_cluster_keys_sort_by_instance_and_uid() -> None:
    keys = [ClusterKey("prod", "b"), ClusterKey("edge", "c"), ClusterKey("prod", "a")]

    assert [str(key) for key in sorted(keys)] == ["edge/c", "prod/a", "prod/b"]


def test_the_types_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        cluster().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(("ca_data", "pem"), [(ca_data_of("PEM"), "PEM"), (None, ""), ("not base64", ""), ("/w==", "")])
def test_a_published_ca_reads_as_pem_or_as_nothing(ca_data: str | None, pem: str) -> None:
    assert ca_pem_of(Server("https://x", ca_data)) == pem
