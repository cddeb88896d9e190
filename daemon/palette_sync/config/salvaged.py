"""The part of the configuration that diagnosis needs, from a configuration in which something is unusual or wrong."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from palette_sync.config.errors import ConfigError
from palette_sync.config.partial_settings import Hidden, PartialRedis, PartialSettings
from palette_sync.config.problems import problems_of
from palette_sync.config.settings import HttpSettings, RedisSettings, Seal, SealSettings
from palette_sync.config.whole import WholeLayers

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from palette_sync.config.layers import Document, Layers

_Section = TypeVar("_Section", bound=BaseModel)
_HEADER = re.compile(r"\s*\[([a-z_.]+)\]")
_UNSEALED = re.compile(r"""^seal\s*=\s*["']none["']""", re.MULTILINE)


class _Salvaged(WholeLayers):
    """The tables of a file that is not valid as a whole, each read by itself; with the other layers as always."""

    def _read_toml(self) -> Document:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            return {}
        document: Document = {}
        parts = re.split(r"^(?=\s*\[)", text, flags=re.MULTILINE)
        for part in parts:
            header = _HEADER.match(part)
            if header is not None and header.group(1).partition(".")[0] in {"redis", "http", "seal"}:
                with suppress(tomllib.TOMLDecodeError, RecursionError):
                    document.update(tomllib.loads(part))
        if document.keys() & {"seal"} == set() and _UNSEALED.search(parts[0]):
            document["seal"] = "none"
        return document


def salvage(path: Path, environ: Mapping[str, str]) -> PartialSettings:
    """Read what can be read with the models of the tables. Raises nothing."""
    problems: dict[str, list[str]] = {}
    try:
        layers = WholeLayers(path, environ)
    except ConfigError as error:
        problems["file"] = error.problems
        layers = _Salvaged(path, environ)
    document = layers.merged()
    redis = dict(_section(RedisSettings, "redis", document, layers, problems))
    instances = document.get("instances")
    names = frozenset(map(str, instances)) if isinstance(instances, dict) else frozenset()
    return PartialSettings(
        redis=PartialRedis(**redis | {"url": Hidden(redis["url"].get_secret_value())}),
        listen=_section(HttpSettings, "http", document, layers, problems).listen,
        seal=_seal(document, layers, problems),
        instances=None if "file" in problems else names,
        problems=problems,
    )


def _section(
    model: type[_Section], name: str, document: Mapping[str, Any], layers: Layers, problems: dict[str, list[str]]
) -> _Section:
    """The table `name`, or its defaults if it is not valid."""
    try:
        return model.model_validate(document.get(name, {}))
    except ValidationError as error:
        problems[name] = _problems(error, name, layers)
        return model()


def _seal(document: Mapping[str, Any], layers: Layers, problems: dict[str, list[str]]) -> Hidden | str | None:
    if layers.could_not_read(("seal", "keys")):
        problems["seal"] = [line for line in layers.problems if "seal" in line]
        return None
    try:
        seal: SealSettings | str = TypeAdapter[Any](Seal).validate_python(document.get("seal", {}))
    except ValidationError as error:
        problems["seal"] = _problems(error, "seal", layers)
        return None
    if isinstance(seal, str):
        return seal
    keys = seal.keys.get_secret_value() if seal.keys else ""
    return Hidden(keys) if keys.strip() else None


def _problems(error: ValidationError, name: str, layers: Layers) -> list[str]:
    details = error.errors(include_input=False, include_url=False, include_context=False)
    for detail in details:
        detail["loc"] = (name, *detail["loc"])
    return problems_of(details, layers)
