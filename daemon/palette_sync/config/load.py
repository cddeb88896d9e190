"""Load the configuration from its layers and tell everything that is wrong with it at once.

Layers, later wins: the TOML file; secret files (`*_file` keys, then a secrets directory as Docker, Kubernetes and
systemd provide them); `PALETTE_SYNC_...` variables with `__` for nesting. `[defaults]` is inherited by every instance.
Unknown keys and unknown variables are refused, because pydantic-settings would ignore them silently; so is a missing
file. A problem names its source, the key and the remedy, and never a value.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from palette_sync.config.settings import (
    NO_INSTANCE,
    PREFIX,
    SEAL_SHAPES,
    AuthRuleSettings,
    DefaultsSettings,
    InstanceSettings,
    RbacRuleSettings,
    RedisSettings,
    SealSettings,
    Settings,
    TrustRuleSettings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

SECRETS_DIR_VARIABLE = f"{PREFIX}SECRETS_DIR"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
_NOT_SETTINGS = frozenset({SECRETS_DIR_VARIABLE, CONFIG_VARIABLE})
_LARGEST_SECRET = 64 * 1024
_FILE = "_file"

Document = dict[str, Any]


class ConfigError(Exception):
    """The configuration cannot be used. `problems`: one line each, naming source, key, fault and remedy."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration whose file is `path`. Raises `ConfigError` with every problem found."""
    environ = os.environ if environ is None else environ
    layers = _Layers(path, environ)
    document = layers.merged()

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's shape
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (InitSettingsSource(settings_cls, init_kwargs=document),)

    try:
        settings = Loaded()  # type: ignore[call-arg]  # the fields come from the source above
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False, include_context=False)
        raise ConfigError(layers.problems + _render(details, layers)) from None
    if layers.problems:
        raise ConfigError(layers.problems)
    return settings


class _Layers:
    """The raw documents of each layer, merged on demand; knows which layer a key came from."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self.problems: list[str] = []
        self._unread: set[tuple[str, ...]] = set()
        self.file = self._read_toml()
        self._resolve_paths(self.file, path.parent)
        self.secrets = self._read_secrets_directory(environ)
        self.environment = self._read_environment(environ)

    def merged(self) -> Document:
        document: Document = {}
        for layer in (self.file, self.secrets, self.environment):
            _merge(document, deepcopy(layer))
        instances, defaults = document.get("instances"), document.get("defaults")
        self._read_file_key(defaults, "api_key", "defaults")
        if isinstance(instances, dict):
            if isinstance(defaults, dict):
                for name, instance in instances.items():
                    if isinstance(instance, dict):
                        instances[name] = _merge(deepcopy(defaults), instance)
            for name, instance in instances.items():
                self._read_file_key(instance, "api_key", "instances", name)
        self._read_file_key(document.get("redis"), "url", "redis")
        self._read_file_key(document.get("seal"), "keys", "seal")
        return document

    def source_of(self, location: tuple[str | int, ...]) -> str:
        """Name where the value at `location` came from, for an error message."""
        keys = _keys(location)
        if keys and _has(self.environment, keys):
            return f"variable {PREFIX}{'__'.join(keys).upper()}"
        if keys and _has(self.secrets, keys):
            return f"secret {'__'.join(keys)}"
        return str(self.path)

    def gives(self, location: tuple[str | int, ...]) -> bool:
        keys = _keys(location)
        return any(_has(layer, keys) for layer in (self.file, self.secrets, self.environment))

    def could_not_read(self, location: tuple[str | int, ...]) -> bool:
        """Whether what is missing at `location` was given, but in a file or variable that could not be read."""
        places = [location]
        if location[:1] == ("instances",):
            places.append(("defaults", *location[2:]))
        return any(place[: len(unread)] == unread for unread in self._unread for place in places)

    def _read_toml(self) -> Document:
        try:
            return tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                [f"{self.path}: there is no such file; copy config.example.toml there, or name another by --config"]
            ) from None
        except OSError as error:
            raise ConfigError([f"{self.path}: cannot be read: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise ConfigError([f"{self.path}: is not UTF-8 text"]) from None
        except RecursionError:
            raise ConfigError([f"{self.path}: is nested too deeply"]) from None
        except tomllib.TOMLDecodeError as error:
            # The message may quote a character, never a value.
            raise ConfigError([f"{self.path}: is not valid TOML: {error}"]) from None

    def _read_secrets_directory(self, environ: Mapping[str, str]) -> Document:
        """Files named like `instances__prod__api_key`. Other files belong to others: Docker has one place."""
        document: Document = {}
        for variable in ("CREDENTIALS_DIRECTORY", SECRETS_DIR_VARIABLE):
            given = environ.get(variable)
            if not given:
                continue
            try:
                files = sorted(Path(given).iterdir())
            except (OSError, ValueError):  # ValueError: a NUL in the path
                self.problems.append(f"variable {variable}: names no directory that can be read")
                self._unread.add(())
                continue
            for file in files:
                keys = file.name.lower().split("__")
                if file.is_file() and keys[0] in Settings.model_fields and len(keys) > 1:
                    text = self._read_secret(file, f"secret {file.name}")
                    if text is None:
                        self._unread.add(tuple(keys))
                    else:
                        _merge(document, _nested(keys, text), twins=True)
        return document

    def _read_environment(self, environ: Mapping[str, str]) -> Document:
        known = tuple(f"{PREFIX}{field}".upper() for field in Settings.model_fields)
        ours = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
        for name in sorted(ours):
            upper = name.upper()
            if upper in _NOT_SETTINGS or any(upper == field or upper.startswith(f"{field}__") for field in known):
                continue
            guess = _closest(upper.removeprefix(PREFIX).split("__")[0].lower(), Settings.model_fields)
            self.problems.append(f"variable {name}: is unknown{guess}; unset it or correct its name")
        document: Document = {}
        for name, value in sorted(ours.items()):
            if not value or name.upper() in _NOT_SETTINGS:
                continue
            source = EnvSettingsSource(Settings)
            source.env_vars = {name.lower(): value}  # one at a time, so that an error can name it
            try:
                _merge(document, source(), twins=True)
            except SettingsError:
                self.problems.append(f"variable {name}: is not valid JSON, as a list or table must be here")
                self._unread.add(tuple(name.lower().removeprefix(PREFIX.lower()).split("__")))
        return document

    def _read_file_key(self, section: object, key: str, *table: str) -> None:
        """Replace `<key>_file` by the file's content. A key beside its file key in the same layer is an error."""
        if not isinstance(section, dict) or key + _FILE not in section:
            return
        given = section.pop(key + _FILE)
        location = (*table, key + _FILE)
        where = f"{self.source_of(location)}: {'.'.join(location)}"
        self._unread.add((*table, key))
        if key in section:
            self.problems.append(f"{where}: stands beside {key}; keep one of the two")
        elif not isinstance(given, str):
            self.problems.append(f"{where}: must be a path")
        elif (text := self._read_secret(Path(given), where)) is not None:
            section[key] = text
            self._unread.discard((*table, key))

    def _read_secret(self, file: Path, where: str) -> str | None:
        """Never names the path: somebody may have written the secret itself there."""
        try:
            with file.open("rb") as stream:
                content = stream.read(_LARGEST_SECRET + 1)
            if len(content) <= _LARGEST_SECRET:
                return content.decode().strip()
            self.problems.append(f"{where}: the file is larger than 64 KiB, which no key is")
        except OSError as error:
            self.problems.append(f"{where}: the file cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.problems.append(f"{where}: the file is not UTF-8 text")
        except ValueError:
            self.problems.append(f"{where}: must be a path")  # it holds a NUL
        return None

    def _resolve_paths(self, table: Document, base: Path, *above: str) -> None:
        """Relative paths in the file are relative to the file, wherever the daemon is started."""
        for key, value in table.items():
            if isinstance(value, dict):
                self._resolve_paths(value, base, *above, key)
            elif isinstance(value, list):
                for number, one in enumerate(value):
                    if isinstance(one, dict):
                        self._resolve_paths(one, base, *above, key, str(number))
            elif key.endswith(_FILE) and isinstance(value, str):
                try:
                    table[key] = str(base / Path(value).expanduser())
                except RuntimeError:
                    where = ".".join((*above, key))
                    self.problems.append(f"{self.path}: {where}: begins with the home of a user who is unknown")


def _merge(into: Document, layer: Document, *, twins: bool = False) -> Document:
    """Merge `layer` over `into`, tables key by key.

    A key and its `_file` twin replace each other, unless both are parts of one layer (`twins`): there it is an error.
    """
    for key, value in layer.items():
        twin = key.removesuffix(_FILE) if key.endswith(_FILE) else key + _FILE
        if not twins and twin not in layer:
            into.pop(twin, None)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, twins=twins)
        else:
            into[key] = value
    return into


def _nested(keys: list[str], value: str) -> Document:
    document: Document = {keys[-1]: value}
    for key in reversed(keys[:-1]):
        document = {key: document}
    return document


def _keys(location: tuple[str | int, ...]) -> list[str]:
    """The keys down to the first list: whoever gives a list gives all of it."""
    return [str(part) for part in takewhile(lambda part: isinstance(part, str), location)]


def _has(document: object, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def _render(details: list[ErrorDetails], layers: _Layers) -> list[str]:
    inherited = {detail["loc"][1:] for detail in details if detail["loc"][:1] == ("defaults",)}
    lines: list[str] = []
    for detail in details:
        location = tuple(part for part in detail["loc"] if part not in SEAL_SHAPES)
        from_defaults = location[:1] == ("instances",) and location[2:] in inherited and not layers.gives(location)
        # What could not be read was told before; that it is missing too would only confuse.
        absent = {"missing": location, "no_seal": ("seal", "keys")}.get(detail["type"])
        if from_defaults or (absent and layers.could_not_read(absent)):
            continue
        lines.append(f"{layers.source_of(location)}: {_message(detail, location)}")
    return lines


def _message(detail: ErrorDetails, location: tuple[str | int, ...]) -> str:
    key = ".".join(map(str, location))
    match detail["type"]:
        case "missing" if location == ("instances",):
            return f"{key}: {NO_INSTANCE}"
        case "missing":
            alternative = f" (or {_file_of(location)})" if location[-1] == "api_key" else ""
            return f"{key}: is missing; set it{alternative}"
        case "extra_forbidden":
            table = ".".join(map(str, location[:-1])) or "the top level"
            return f"{key}: is unknown{_closest(str(location[-1]), _fields_at(location[:-1]))}; remove it from {table}"
        case "no_seal":
            return detail["msg"]
        case "value_error":
            return f"{key}: {detail['msg'].removeprefix('Value error, ')}"
        case "tuple_type":
            return f"{key}: must be a list"
        case "model_type" | "dict_type":
            return f"{key}: must be a table"
        case "literal_error":
            return f"{key}: is none of the allowed words ({detail['msg'].removeprefix('Input should be ')})"
        case _:
            return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _file_of(location: tuple[str | int, ...]) -> str:
    """Where a secret may lie. The directory is easily forgotten: only the service is given it by its supervisor."""
    return f"{location[-1]}{_FILE}, or {'__'.join(map(str, location))} in {SECRETS_DIR_VARIABLE}"


def _fields_at(location: tuple[str | int, ...]) -> list[str]:
    """The keys that a table may hold, to guess what was meant."""
    model: type[BaseModel] = Settings
    rest = location
    if location[:1] == ("instances",):
        model, rest = InstanceSettings, location[2:]
    elif location == ("seal",):
        model, rest = SealSettings, ()
    for part in rest:
        if part == "rules":
            rules: dict[str, type[BaseModel]] = {
                "auth": AuthRuleSettings,
                "trust": TrustRuleSettings,
                "rbac": RbacRuleSettings,
            }
            return list(next(rule for table, rule in rules.items() if table in rest).model_fields)
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        model = annotation
    secret = _SECRET_KEYS.get(model)
    return [*model.model_fields, *([secret + _FILE] if secret else [])]


# The key of each table that may come from a file of its own.
_SECRET_KEYS: dict[type[BaseModel], str] = {
    DefaultsSettings: "api_key",
    InstanceSettings: "api_key",
    RedisSettings: "url",
    SealSettings: "keys",
}


def _closest(name: str, options: Any) -> str:
    found = difflib.get_close_matches(name, list(options), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
