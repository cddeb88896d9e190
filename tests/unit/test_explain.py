"""What is said of a token that is left in a cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from builders import NOW, candidate, sealed_credential
from palette_sync.core.model import ClusterMemory, RetiredSecret
from palette_sync.core.objects import Desired
from palette_sync.core.rbac import VIEW
from palette_sync.reconcile.explain import token_lives

POLICY: Any = SimpleNamespace(desired=Desired("tools", "sa", "token", "reader", "binding", VIEW))
RETIRED = (RetiredSecret("token", "uid", NOW),)


@pytest.mark.parametrize(
    ("credential", "until"),
    [
        pytest.param(sealed_credential(expires_at=NOW), "lives on until 2026-", id="it expires"),
        pytest.param(sealed_credential(expires_at=None), "lives on for ever", id="it never expires"),
        pytest.param(None, "lives on until it expires", id="its end is unknown"),
    ],
)
def test_it_is_said_how_long_the_token_lives_and_what_to_delete(credential: Any, until: str) -> None:
    left = candidate(credential=credential, memory=ClusterMemory(generation="token-2", retired=RETIRED))

    message = token_lives(left, POLICY, "no answer")

    for word in (until, "could not be revoked: no answer", "delete Secret token-2, token in namespace tools"):
        assert word in message


def test_without_a_memory_the_first_secret_is_named() -> None:
    assert "Secret token in" in token_lives(candidate(memory=ClusterMemory()), POLICY, "no answer")
