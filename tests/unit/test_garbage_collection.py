"""What a pass leaves behind is set aside, and still freed once nobody refers to it."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from palette_sync.service import garbage_collection
from palette_sync.service.garbage_collection import IdleCollector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Node:
    def __init__(self) -> None:
        self.itself: Node | None = None


def test_what_is_set_aside_is_not_walked_and_still_freed() -> None:
    kept = Node()
    watch = weakref.ref(kept)

    IdleCollector().collect()

    assert gc.get_freeze_count() > 0
    del kept
    assert watch() is None


def test_a_cycle_that_was_set_aside_is_found_when_everything_is_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node()
    node.itself = node
    watch = weakref.ref(node)
    one = IdleCollector()
    one.collect()
    del node
    one.collect()
    assert watch() is not None

    monkeypatch.setattr(garbage_collection, "FULL_COLLECTION", -1.0)
    one.collect()

    assert watch() is None
