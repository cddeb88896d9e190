"""Turn the errors of pydantic into problems: one line with source, key, what is wrong and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args, get_origin

from pydantic import BaseModel

from palette_sync.config.layers import FILE, SECRETS_DIR_VARIABLE, closest
from palette_sync.config.settings import (
    NO_INSTANCE,
    SEAL_SHAPES,
    DefaultsSettings,
    HttpSettings,
    InstanceSettings,
    RedisSettings,
    SealSettings,
    Settings,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from palette_sync.config.layers import Layers, Location

# The key of each table that a file can give (`<key>_file`).
_SECRET_KEYS: dict[type[BaseModel], str] = {
    DefaultsSettings: "api_key",
    InstanceSettings: "api_key",
    RedisSettings: "url",
    SealSettings: "keys",
    HttpSettings: "token",
}


def problems_of(details: list[ErrorDetails], layers: Layers) -> list[str]:
    """Return one line for each error, without those that only repeat another problem.

    An error in `[defaults]` repeats in every instance that inherits the key. A value that could not be read is already
    among the problems of `layers`, so it is not reported as missing too.
    """
    in_defaults = {detail["loc"][1:] for detail in details if detail["loc"][:1] == ("defaults",)}
    lines: list[str] = []
    for detail in details:
        location = tuple(part for part in detail["loc"] if part not in SEAL_SHAPES)
        inherited = location[:1] == ("instances",) and location[2:] in in_defaults and not layers.gives(location)
        absent = {"missing": location, "no_seal": ("seal", "keys")}.get(detail["type"])
        if inherited or (absent and layers.could_not_read(absent)):
            continue
        lines.append(f"{layers.source_of(location)}: {_message(detail, location)}")
    return lines


def _message(detail: ErrorDetails, location: Location) -> str:
    key = ".".join(map(str, location))
    match detail["type"]:
        case "missing" if location == ("instances",):
            return f"{key}: {NO_INSTANCE}"
        case "missing":
            alternative = f" (or {_file_of(location)})" if location[-1] == "api_key" else ""
            return f"{key}: is missing; set it{alternative}"
        case "extra_forbidden":
            return f"{key}: is unknown{closest(str(location[-1]), _keys_at(location[:-1]))}; rename or remove it"
        case "no_seal":
            return detail["msg"]
        case "value_error":
            return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
        case "tuple_type":
            return f"{key}: must be a list"
        case "model_type" | "literal_error" if location == ("seal",):
            return f'{key}: must be a table with keys or keys_file, or the word "none"'
        case "model_type" | "dict_type":
            return f"{key}: must be a table"
        case _:
            return f"{key}: {detail['msg'].replace('Input should be', 'must be', 1)}"


def _file_of(location: Location) -> str:
    """Name the files that can hold the secret. The directory is named because only a supervised service has it."""
    return f"{location[-1]}{FILE}, or {'__'.join(map(str, location))} in {SECRETS_DIR_VARIABLE}"


def _keys_at(location: Location) -> list[str]:
    """Return the keys that the table at `location` can have."""
    model: type[BaseModel] = Settings
    rest = location
    if location[:1] == ("instances",):
        model, rest = InstanceSettings, location[2:]
    elif location == ("seal",):
        model, rest = SealSettings, ()
    for part in rest:
        if isinstance(part, int):  # an index into the list before it
            continue
        annotation = model.model_fields[part].annotation
        if get_origin(annotation) is tuple:
            annotation = get_args(annotation)[0]
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        model = annotation
    secret = _SECRET_KEYS.get(model)
    return [*model.model_fields, *([secret + FILE] if secret else [])]
