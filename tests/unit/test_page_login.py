"""Who may see the page and press its buttons: the token, the session that proves it, and the forms of a session."""

from __future__ import annotations

from datetime import timedelta

import pytest

from builders import NOW
from palette_sync.core.model import Secret
from palette_sync.page.login import (
    LIFE,
    bearer_matches,
    form_is_own,
    form_key,
    session_is_valid,
    session_of,
    token_matches,
)

TOKEN = Secret("canary-token-of-the-page")
OTHER = Secret("another-token-of-the-page")


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {TOKEN.reveal()}", True),
        (f"bearer   {TOKEN.reveal()} ", True),
        (f"Basic {TOKEN.reveal()}", False),
        (f"Bearer {OTHER.reveal()}", False),
        (TOKEN.reveal(), False),
        ("Bearer ", False),
        ("Bearer \udcff\u00e9", False),
        (None, False),
    ],
)
def test_a_bearer_needs_the_token(header: str | None, *, right: bool) -> None:
    assert bearer_matches(TOKEN, header) is right


def test_a_part_of_the_token_is_not_the_token() -> None:
    assert token_matches(TOKEN, TOKEN.reveal())
    assert not token_matches(TOKEN, TOKEN.reveal()[:-1])
    assert not token_matches(TOKEN, "")


def test_a_session_ends_by_itself_and_with_the_token() -> None:
    session = session_of(TOKEN, now=NOW)

    assert session_is_valid(TOKEN, session, now=NOW)
    assert session_is_valid(TOKEN, session, now=NOW + LIFE - timedelta(seconds=1))
    assert not session_is_valid(TOKEN, session, now=NOW + LIFE)
    assert not session_is_valid(OTHER, session, now=NOW)
    assert TOKEN.reveal() not in session


def test_nobody_prolongs_a_session() -> None:
    ends, _, proof = session_of(TOKEN, now=NOW).partition(".")
    assert not session_is_valid(TOKEN, f"{int(ends) + 1}.{proof}", now=NOW)


@pytest.mark.parametrize(
    "session", [None, "", ".", "x.y", "99999999999999999999.x", "\u0663.x", "1", "-1.x", "9" * 11 + "."]
)
def test_what_is_no_session_is_refused(session: str | None) -> None:
    assert not session_is_valid(TOKEN, session, now=NOW)


def test_a_form_belongs_to_one_session() -> None:
    one, other = session_of(TOKEN, now=NOW), session_of(TOKEN, now=NOW + LIFE)
    key = form_key(TOKEN, one)

    assert form_is_own(TOKEN, one, key)
    assert not form_is_own(TOKEN, other, key)
    assert not form_is_own(OTHER, one, key)
    assert not form_is_own(TOKEN, one, "")
    assert key not in one
