"""What macs cover: each text has its own name, and no two values make the same text."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from palette_sync.core import mac_texts
from palette_sync.core.mac_texts import UnclearText, joined

if TYPE_CHECKING:
    from collections.abc import Callable

parts = st.lists(st.text(max_size=5), min_size=1, max_size=4)
VERSION: dict[str, Any] = {
    "epoch": 7,
    "version": 3,
    "clusters": 2,
    "complete": True,
    "changed_at": "2026-03-01T12:00:00Z",
    "digest": "d",
    "credentials_digest": "c",
    "unconfirmed": "",
}
TEXTS: dict[str, Callable[[], str]] = {
    "head": lambda: mac_texts.version_text("p", "i", **VERSION),
    "checked": lambda: mac_texts.check_text("p", "i", epoch=7, version=3, checked_at="t"),
    "work": lambda: mac_texts.value_text("work", "p", "i", "f", b"{}"),
    "status": lambda: mac_texts.value_text("status", "p", "i", "", b"{}"),
    "history": lambda: mac_texts.history_text("p", "i", 3, b"z"),
    "owner": lambda: mac_texts.owner_text("p", "redis://a"),
    "request": lambda: mac_texts.request_text("p", "i", request_id="r", verb="resync", at=1, by="b"),
    "answer": lambda: mac_texts.answer_text("p", "i", request_id="r", word="done", text="t", document="{}"),
}


@given(parts, parts)
def test_different_parts_never_make_the_same_text(one: list[str], other: list[str]) -> None:
    assume(one != other)
    try:
        assert joined(*one) != joined(*other)
    except UnclearText:
        assert any("\n" in part for part in (*one, *other))


@pytest.mark.parametrize("kind", TEXTS)
def test_each_text_begins_with_its_own_name(kind: str) -> None:
    assert TEXTS[kind]().split("\n")[0] == f"palette-sync/{kind}/1"


def test_the_text_of_a_version_is_that_of_the_contract() -> None:
    nothing = hashlib.sha256(b"").hexdigest()

    assert TEXTS["head"]() == f"palette-sync/head/1\np\ni\n7\n3\n2\n1\n2026-03-01T12:00:00Z\nd\nc\n{nothing}"


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name, value in {"epoch": 8, "version": 4, "clusters": 3, "complete": False}.items()),
        *({name: "x"} for name in ("changed_at", "digest", "credentials_digest", "unconfirmed")),
    ],
)
def test_every_part_of_a_version_changes_its_text(change: dict[str, Any]) -> None:
    assert mac_texts.version_text("p", "i", **(VERSION | change)) != TEXTS["head"]()


def test_prefix_and_instance_are_in_every_text_of_an_instance() -> None:
    for name, function in inspect.getmembers(mac_texts, inspect.isfunction):
        if name.endswith("_text") and name != "owner_text":
            assert {"prefix", "instance"} <= inspect.signature(function).parameters.keys(), name


def test_a_line_feed_in_a_part_is_refused() -> None:
    with pytest.raises(UnclearText):
        mac_texts.value_text("issuer", "p", "i", "https://a\nb", b"{}")
