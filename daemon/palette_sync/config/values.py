"""Types of single values: durations, lists of names, networks, URLs, API keys.

Each accepts what the file and a variable can give, and raises ValueError with a text that never contains the value.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from palette_sync.config.errors import NOT_JSON
from palette_sync.core.api_key import api_key_problem
from palette_sync.core.durations import parse_duration, seconds_in
from palette_sync.core.network import Network


def _duration_or_zero(value: object) -> object:
    """Accept a duration, or 0."""
    return timedelta(0) if value == timedelta(0) or seconds_in(value) == 0 else _positive(parse_duration(value))


def _duration_or_never(value: object) -> object:
    """Accept a duration, or the word "never" as None."""
    if value is None or (isinstance(value, str) and value.strip() == "never"):
        return None
    try:
        return _positive(parse_duration(value))
    except ValueError as error:
        raise ValueError(f'{error}, or "never"') from None


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def parse_json(value: object) -> object:
    """Decode the JSON text by which a variable gives a list or a table; return any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(NOT_JSON) from None


def _names(value: object) -> object:
    """Accept one string in place of a list of one, and a list as JSON text."""
    if isinstance(value, str):
        return parse_json(value) if value.lstrip().startswith("[") else (value,)
    return value


def _networks(value: object) -> object:
    """Accept networks as `10.0.0.0/8`, and single addresses."""
    listed = _names(value)
    if not isinstance(listed, list | tuple):
        return listed
    return tuple(one if isinstance(one, Network) else _network(one) for one in listed)


def _network(value: object) -> Network:
    with suppress(ValueError):
        if isinstance(value, str):
            return ip_network(value)
    raise ValueError('has an entry that is not a network; write for example "10.0.0.0/8", "10.1.2.3" or "fd00::/8"')


def _https_url(value: str) -> str:
    if not re.fullmatch(r"https://[^\s/?#@]+/?", value):
        raise ValueError('must be "https://HOST" or "https://HOST:PORT", without path, user or query')
    return value.rstrip("/")


def _collector_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s?#@]+", value):
        raise ValueError('must be "http://HOST:4318" or "https://HOST", without user or query')
    return value.rstrip("/")


def _proxy_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+/?", value):
        raise ValueError('must be "http://HOST:PORT", without path or query')
    return value


def _api_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if problem := api_key_problem(key):
        raise ValueError(problem)
    return SecretStr(key)


Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_positive)]
DurationOrNever = Annotated[timedelta | None, BeforeValidator(_duration_or_never)]
DurationOrZero = Annotated[timedelta, BeforeValidator(_duration_or_zero)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
CollectorUrl = Annotated[str, AfterValidator(_collector_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]
