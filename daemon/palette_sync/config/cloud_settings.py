"""The tables `cloud.aws`, `cloud.google` and `cloud.azure`: for which clusters palette-sync gets tokens by itself."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, field_validator, model_validator

from palette_sync.config.sections import ClusterRule, Section
from palette_sync.config.values import Names, parse_json


class CloudSettings(Section):
    """A cloud whose tokens palette-sync gets by itself. With rules, only for the clusters that match one of them."""

    enabled: bool = False


_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)


class AwsRole(Section):
    role_arn: str | None = None
    external_id: str | None = None

    @field_validator("role_arn")
    @classmethod
    def _is_a_role(cls, value: str | None) -> str | None:
        if value is not None and not _ROLE_ARN.fullmatch(value):
            raise ValueError('is not the ARN of a role; write for example "arn:aws:iam::123456789012:role/backstage"')
        return value


class AwsRuleSettings(AwsRole, ClusterRule):
    """A rule without `role_arn` uses that of the table."""


class AwsSettings(CloudSettings, AwsRole):
    rules: Annotated[tuple[AwsRuleSettings, ...], BeforeValidator(parse_json)] = ()

    @model_validator(mode="after")
    def _external_id_has_a_role(self) -> AwsSettings:
        if self.enabled and any(one.external_id and not one.role_arn for one in (self, *self.rules)):
            raise ValueError("external_id needs role_arn beside it")
        return self


class GoogleSettings(CloudSettings):
    """`projects`: the ids of the Google Cloud projects whose clusters may get a token."""

    projects: Names = ()
    rules: Annotated[tuple[ClusterRule, ...], BeforeValidator(parse_json)] = ()

    @model_validator(mode="after")
    def _has_projects(self) -> GoogleSettings:
        if self.enabled and not self.projects:
            raise ValueError("projects is empty; name the Google Cloud projects whose clusters may get a token")
        return self


class AzureSettings(CloudSettings):
    rules: Annotated[tuple[ClusterRule, ...], BeforeValidator(parse_json)] = ()


class CloudsSettings(Section):
    aws: AwsSettings = AwsSettings()
    google: GoogleSettings = GoogleSettings()
    azure: AzureSettings = AzureSettings()
