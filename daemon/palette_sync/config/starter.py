"""The first configuration of a new installation: small, with what has no default, and commented."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from palette_sync.config.settings import Mode, RedisSettings, instance_name_problem
from palette_sync.config.values import HttpsUrl
from palette_sync.core.api_key import api_key_problem

DEFAULT_URL = "https://api.spectrocloud.com"
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"
MODES = ("service-account", "oidc", "auto")


@dataclass(frozen=True, slots=True)
class Starter:
    """What `config init` asks for. Files are named relative to the configuration. `redis_url_file` wins over
    `redis_url`.
    """

    instance: str
    url: str
    mode: str
    api_key_file: str
    keys_file: str
    redis_url: str = DEFAULT_REDIS
    redis_url_file: str = ""


def problem_with(field: str, value: str) -> str | None:
    """What is wrong with a value of `instance`, `url`, `redis_url`, `mode` or `api_key`; None if nothing is.

    No text contains the value.
    """
    pure = {"instance": instance_name_problem, "api_key": api_key_problem}
    if field in pure:
        return pure[field](value)
    try:
        match field:
            case "url":
                TypeAdapter[Any](HttpsUrl).validate_python(value)
            case "redis_url":
                RedisSettings.model_validate({"url": value})
            case "mode":
                TypeAdapter[Any](Mode).validate_python(value)
    except ValidationError as error:
        message = error.errors(include_input=False, include_url=False, include_context=False)[0]["msg"]
        return message.removeprefix("Value error, ").replace("Input should be", "must be")
    return None


def starter_text(starter: Starter) -> str:
    """Return the text of the configuration."""
    redis = (
        f"url_file = {_text(starter.redis_url_file)}" if starter.redis_url_file else f"url = {_text(starter.redis_url)}"
    )
    return f"""\
# The configuration of palette-sync. `palette-sync config example` prints every key with its default, and
# `palette-sync config show` what is in force. Relative paths are relative to this file.

[instances.{starter.instance}]
url = {_text(starter.url)}
api_key_file = {_text(starter.api_key_file)}  # the file holds the API key alone
# include_projects = ["production-*"]  # names, uids or globs; without it all projects

[instances.{starter.instance}.auth]
mode = {_text(starter.mode)}  # service-account | oidc | auto (OIDC where it works, else a service account)

# What Backstage may read in a cluster: "read-only" is everything, Secrets too; "view" lists what Backstage shows.
# [instances.{starter.instance}.rbac]
# preset = "view"

[redis]
{redis}

[seal]
keys_file = {_text(starter.keys_file)}  # encrypts tokens in Redis; Backstage needs it too
"""


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
