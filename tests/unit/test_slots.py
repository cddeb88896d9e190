"""No code of the store takes a way on which a Redis Cluster could not follow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import palette_sync

PACKAGE = Path(palette_sync.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
OWN = {PACKAGE / "store" / "connect.py", PACKAGE / "store" / "cluster.py"}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(re.compile(r"\.pipeline\("), id="Link.transaction sends MULTI to one server"),
        pytest.param(re.compile(r"execute_command\([^)]*\"(XREAD|TIME)\""), id="Link.send names the server"),
        pytest.param(re.compile(r"command\([^)]*\"(XREAD|TIME|PING)\""), id="Link.send, server_time and ping do"),
    ],
)
def test_only_the_connection_knows_how_servers_are_chosen(way: re.Pattern[str]) -> None:
    assert [path.name for path in SOURCES if path not in OWN and way.search(path.read_text())] == []


def test_scripts_name_their_keys_in_keys() -> None:
    """A server refuses, or sends to another one, what touches a key that was not named."""
    scripts = sorted((PACKAGE / "store").glob("*.lua"))
    assert scripts
    for script in scripts:
        assert not re.search(r"redis\.p?call\('\w+', '", script.read_text()), script.name
