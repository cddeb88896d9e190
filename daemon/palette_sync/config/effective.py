"""The configuration in force as keys and values for people and programs. Secrets are masked."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, SecretStr

from palette_sync.core.durations import written_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from palette_sync.config.settings import Settings

MASK = "********"
Keys = tuple[str, ...]


def effective(settings: Settings) -> Iterator[tuple[Keys, Any]]:
    """Yield the keys and the value of each setting, in the order of the tables. `[defaults]` stands in each instance.

    A value is what JSON can hold; None where the setting has no value.
    """
    for name, instance in settings.instances.items():
        yield from _table(instance, ("instances", name))
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, BaseModel) and name != "defaults":
            yield from _table(section, (name,))
        elif isinstance(section, str):
            yield (name,), section


def _table(model: BaseModel, above: Keys) -> Iterator[tuple[Keys, Any]]:
    tables: list[tuple[str, BaseModel]] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            tables.append((name, value))
        else:
            yield (*above, name), _shown(name, value, field)
    for name, table in tables:
        yield from _table(table, (*above, name))


def _shown(name: str, value: object, field: FieldInfo) -> Any:
    if value is None:
        return "never" if timedelta in get_args(field.annotation) else None
    if name == "http_proxy":
        return masked_url(str(value))
    if isinstance(value, SecretStr):
        return masked_url(value.get_secret_value()) if name == "url" else MASK
    return _plain(value)


def _plain(value: object) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, timedelta):
        return written_duration(value)
    if isinstance(value, BaseModel):
        return {name: _plain(one) for name in type(value).model_fields if (one := getattr(value, name)) is not None}
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool) else str(value)


def masked_url(url: str) -> str:
    """The URL without user and password. A password may hold every character, so the last `@` ends it.

    Of options after a question mark only `db` is shown: other programs accept a password there, and it is refused here.
    """
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    place = re.sub(r"\?(?!db=[0-9]*$).*", f"?{MASK}", place, flags=re.DOTALL)
    return f"{scheme}{separator}{MASK}@{place}" if at and login else f"{scheme}{separator}{login}{at}{place}"
