"""Who may see the page and press its buttons, where a token is configured. Pure.

A session is a cookie, which proves that its holder knew the token. The daemon stores nothing for it: it survives a
restart, and another token ends it. Every form carries a proof of the session, so that no other site can send one.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palette_sync.core.model import Secret

COOKIE = "palette-sync-session"
LIFE = timedelta(hours=12)
_BEARER = "bearer "


def bearer_matches(token: Secret, header: str | None) -> bool:
    """Whether an Authorization header carries the token."""
    given = header or ""
    return given[: len(_BEARER)].lower() == _BEARER and token_matches(token, given[len(_BEARER) :].strip())


def token_matches(token: Secret, given: str) -> bool:
    """Compare without showing by the time it takes how much of the token was right."""
    return hmac.compare_digest(token.reveal().encode(), given.encode(errors="replace"))


def session_of(token: Secret, *, now: datetime) -> str:
    """The value of the cookie for a session that begins now."""
    ends = str(int((now + LIFE).timestamp()))
    return f"{ends}.{_proof(token, 'session', ends)}"


def session_is_valid(token: Secret, session: str | None, *, now: datetime) -> bool:
    ends, _, proof = (session or "").partition(".")
    if not ends.isascii() or not ends.isdecimal() or len(ends) > 12:  # noqa: PLR2004 - digits of a time
        return False
    right = hmac.compare_digest(_proof(token, "session", ends).encode(), proof.encode(errors="replace"))
    return right and now < datetime.fromtimestamp(int(ends), UTC)


def form_key(token: Secret, session: str) -> str:
    """What a form carries that was rendered for a session."""
    return _proof(token, "form", session)


def form_is_own(token: Secret, session: str, given: str) -> bool:
    """Whether a form was rendered for this session."""
    return hmac.compare_digest(form_key(token, session).encode(), given.encode(errors="replace"))


def _proof(token: Secret, what: str, text: str) -> str:
    return hmac.digest(token.reveal().encode(), f"palette-sync page {what}\n{text}".encode(), "sha256").hex()
