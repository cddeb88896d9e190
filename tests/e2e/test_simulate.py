"""`palette-sync simulate` as a process, with other addresses and stores than the default, as containers need them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from e2e.command import palette_sync, simulation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux serves all of 127.0.0.0/8 without configuration")
def test_a_pass_works_against_another_address_with_nothing_but_the_written_files(
    tmp_path: Path, valkey_url: str, prefix: str
) -> None:
    elsewhere = ("--listen", "127.0.0.2", "--host", "127.0.0.2", "--redis-url", valkey_url)

    with simulation(tmp_path, "--instances", "1", "--projects", "1", "--clusters", "3", *elsewhere) as document:
        ran = palette_sync("once", "--config", tmp_path / "config.toml", "--json", PALETTE_SYNC_REDIS__PREFIX=prefix)

    assert ran.code == 0, ran.err
    urls = [document["instances"][0]["url"], *(one["url"] for one in document["instances"][0]["clusters"])]
    assert all(url.startswith("https://127.0.0.2:") for url in urls), urls
    assert ran.document["passes"][0]["access"] == {"ready": 3}


def test_a_mixed_world_says_what_each_kind_of_cluster_needs(tmp_path: Path, valkey_url: str, prefix: str) -> None:
    variables = {"PALETTE_SYNC_REDIS__PREFIX": prefix}
    config = tmp_path / "config.toml"
    size = ("--instances", "1", "--projects", "1", "--clusters", "13", "--mix", "--redis-url", valkey_url)

    with simulation(tmp_path, *size):
        planned = palette_sync("plan", "--config", config, **variables)
        checked = palette_sync("check", "--config", config, **variables)
        ran = palette_sync("once", "--config", config, "--json", **variables)

    assert ran.document["passes"][0]["access"] == {"failed": 5, "pending": 2, "ready": 6}
    for reason, key in (("NeedsAws", "aws"), ("NeedsGoogle", "google"), ("NeedsAzure", "azure")):
        assert f"{reason}Credentials" in planned.out
        assert f"Configure `cloud.{key}`" in " ".join(planned.out.split())
    assert "NeedsAwsCredentials" in checked.out
    assert "NeedsGoogleCredentials" in checked.out
    assert checked.code == 0, "a cluster that needs more is a warning"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--latency", "soon"), '--latency is not a duration; write for example "90s"'),
        (("--listen", "0.0.0.0"), "host must be the name or address"),
        (("--listen", "nowhere"), "listen must be an IPv4 address"),
        (("--host", "a b"), "host must be a host name"),
        (("--redis-url", "http://redis"), "--redis-url: redis.url cannot be understood"),
        (("--redis-url", "redis://u:canary@redis:6379"), "--redis-url: contains a password"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(tmp_path: Path, arguments: tuple[str, str], message: str) -> None:
    ran = palette_sync("simulate", "--out", tmp_path / "out", *arguments)

    assert ran.code == 78
    assert message in ran.err
    assert "canary" not in ran.err
    assert not (tmp_path / "out").exists()


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    ran = palette_sync("simulate", "--out", tmp_path, "--listen", "192.0.2.1", "--host", "simulator")

    assert ran.code == 1
    assert "--listen 192.0.2.1" in ran.err
    assert "Traceback" not in ran.err
