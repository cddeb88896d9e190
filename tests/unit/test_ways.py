"""Which way to an API server is tried first."""

from __future__ import annotations

import pytest

from palette_sync.core.ways import SpectroProxy, Way, to_remember, ways

DIRECT, PROXY = Way.DIRECT, Way.PROXY


@pytest.mark.parametrize(
    ("setting", "first", "remembered", "expected"),
    [
        (SpectroProxy.AUTO, DIRECT, None, (DIRECT, PROXY)),
        (SpectroProxy.AUTO, PROXY, None, (PROXY, DIRECT)),
        (SpectroProxy.AUTO, DIRECT, PROXY, (PROXY, DIRECT)),
        (SpectroProxy.AUTO, PROXY, DIRECT, (DIRECT, PROXY)),
        (SpectroProxy.NEVER, PROXY, PROXY, (DIRECT,)),
        (SpectroProxy.ALWAYS, DIRECT, DIRECT, (PROXY,)),
    ],
)
def test_the_way_that_worked_last_is_tried_first_where_the_setting_allows_both(
    setting: SpectroProxy, first: Way, remembered: Way | None, expected: tuple[Way, ...]
) -> None:
    assert ways(setting, first=first, remembered=remembered) == expected


def test_only_a_way_that_is_not_tried_first_anyway_is_remembered() -> None:
    assert to_remember(PROXY, first=DIRECT) is PROXY
    assert to_remember(PROXY, first=PROXY) is None
