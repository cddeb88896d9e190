"""A secret never shows itself."""

from __future__ import annotations

import pickle

import pytest

from palette_sync.core.model import ClusterKey, Credential, Secret
from unit.builders import NOW, credential


def test_a_secret_is_masked_in_every_way_of_showing_it() -> None:
    secret = Secret("canary")

    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>20}",
        repr([secret]),
        repr({"a": secret}),
    ]

    assert not any("canary" in text for text in shown)
    assert secret.reveal() == "canary"


def test_a_secret_compares_by_value_and_is_not_pickled() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert not Secret("")
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))


def test_a_sealed_credential_lives_until_it_expires_and_never_ends_without_an_expiry() -> None:
    assert credential().alive(NOW)
    assert not credential(expires_at=NOW).alive(NOW)
    assert credential(expires_at=None).alive(NOW)
    assert "sealed" not in repr(credential(sealed="canary"))


def test_a_fresh_credential_is_judged_alike() -> None:
    fresh = Credential(Secret("t"), NOW, NOW, NOW)

    assert not fresh.alive(NOW)
    assert "canary" not in repr(Credential(Secret("canary"), NOW, NOW))


def test_a_cluster_key_reads_as_instance_and_uid() -> None:
    assert str(ClusterKey("prod", "abc")) == "prod/abc"
