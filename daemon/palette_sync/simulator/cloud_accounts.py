"""The identities of AWS, Google Cloud and Entra ID that the simulated clusters of EKS, GKE and AKS accept."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from palette_sync.simulator import aws_tokens
from palette_sync.simulator.kube_tokens import User

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

Bearer = Literal["google", "azure"]
REGION = "eu-central-1"
TOKEN_SECONDS = 3600
_ADMINS = frozenset({"system:masters", "system:authenticated"})


class CloudAccounts:
    """One identity per cloud, administrator of every cluster of that cloud. `aws_keys` may get keys of roles, by id.

    Tokens of AWS are signed with the clock of this machine, so AWS has that clock, moved by `aws_skew` seconds.
    """

    def __init__(self, clock: Callable[[], float], generator: Random) -> None:
        self._clock = clock
        self._random = generator
        self.aws_skew = 0.0
        self._issued: dict[str, tuple[Bearer, float]] = {}
        self.aws = self.new_aws_key("AKIA", "arn:aws:iam::123456789012:user/palette-sync")
        self.aws_keys = {self.aws.access_key_id: self.aws}

    def new_aws_key(self, prefix: str, user: str, session_token: str | None = None) -> aws_tokens.AwsKey:
        digits = f"{self._random.getrandbits(64):016X}"
        return aws_tokens.AwsKey(f"{prefix}{digits}", f"canary-aws-secret-{digits}", user, session_token)

    def issue(self, cloud: Bearer) -> str:
        """An access token of Google or Entra ID, for an hour."""
        token = f"canary-{cloud}-token-{self._random.getrandbits(96):024x}"
        self._issued[token] = (cloud, self._clock() + TOKEN_SECONDS)
        return token

    def eks_token(self, cluster: str, *, age: float = 0.0) -> str:
        """A token as Palette puts it into the kubeconfig of an EKS cluster, made `age` seconds ago for 15 minutes."""
        when = self._now() - timedelta(seconds=age)
        return aws_tokens.sign(self.aws, cluster=cluster, region=REGION, when=when)

    def user_of(self, cloud_type: str, cluster: str, token: str) -> User | None:
        """The user that a cluster of this cloud and name sees; None if the token is not valid for it."""
        if cloud_type == "eks":
            name = aws_tokens.user_of(token, self.aws_keys, cluster=cluster, now=self._now())
            return User(name, _ADMINS) if name is not None else None
        cloud, expires = self._issued.get(token, (None, 0.0))
        accepted = {"gke": "google", "aks": "azure"}.get(cloud_type)
        return User(f"{cloud}-user", _ADMINS) if cloud == accepted is not None and self._clock() < expires else None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(time.time() + self.aws_skew, UTC)
