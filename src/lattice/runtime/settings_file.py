"""Reads the daemon's settings and says where each came from.

Order, the first that gives a value wins: `LATTICE_…` variables (`LATTICE_ENGINE__KIND`), then one file (`--config`,
else `LATTICE_CONFIG_PATH`, else the user's config.toml), then the defaults.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.inspect import Metadata, StructType, type_info

from lattice.core.errors import LatticeError
from lattice.runtime import paths
from lattice.runtime.settings import DaemonSettings, SecretText

CONFIG_VARIABLE = "LATTICE_CONFIG_PATH"

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`")


class LoadedSettings(NamedTuple):
    """Settings, the file they came from, and the source of each dotted key."""

    settings: DaemonSettings
    file: Path | None
    sources: dict[str, str]


class SettingRow(msgspec.Struct, frozen=True):
    """One setting as `config show` prints it."""

    key: str
    value: Any
    source: str
    description: str


def load_settings(config: Path | None = None) -> LoadedSettings:
    """Read the settings, or raise `config_invalid` naming the key and the file; values are never echoed."""
    file = _config_file(config)
    table = _read_toml(file) if file else {}
    variables = dict(_from_environment(os.environ))
    merged = table
    for key, value in variables.items():
        merged = _with(merged, key.split("."), value)
    try:
        settings = msgspec.convert(merged, DaemonSettings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise LatticeError("config_invalid", _explain(str(error), file, variables)) from None
    sources = dict.fromkeys(dict(_keys()), "default")
    sources |= {key: str(file) for key in flatten(table) if key in sources}
    sources |= {key: variable(key) for key in variables}
    return LoadedSettings(settings, file, sources)


def describe(loaded: LoadedSettings) -> list[SettingRow]:
    """Every setting with its value (secrets masked), source and meaning."""
    values = flatten(msgspec.to_builtins(loaded.settings, enc_hook=str))
    descriptions = dict(_keys())
    return [SettingRow(key, values[key], source, descriptions[key]) for key, source in loaded.sources.items()]


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return "LATTICE_" + key.replace(".", "__").upper()


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _keys(section: type[msgspec.Struct] = DaemonSettings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key with its description."""
    info = type_info(section)
    assert isinstance(info, StructType)
    for field in info.fields:
        kind = field.type
        if isinstance(kind, StructType):
            yield from _keys(kind.cls, f"{prefix}{field.name}.")
        else:
            schema = kind.extra_json_schema if isinstance(kind, Metadata) else None
            yield prefix + field.name, str((schema or {}).get("description", ""))


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for key, _ in _keys():
        text = environment.get(variable(key))
        if text is None:
            continue
        if key == "engine.models":  # the one list: JSON
            try:
                yield key, msgspec.json.decode(text)
            except msgspec.DecodeError:
                raise LatticeError("config_invalid", f"{variable(key)} is not valid JSON.") from None
        else:
            yield key, text


def _with(table: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    inner = table.get(head)
    return {**table, head: _with(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}


def _decode(kind: type, value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    if kind is SecretText:
        return SecretText(value)
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


def _config_file(config: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        named = named.expanduser().absolute()
        if not named.is_file():
            raise LatticeError("config_invalid", f"There is no configuration file at {named}.")
        return named
    default = paths.user_config_file()
    return default if default.is_file() else None


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LatticeError("config_invalid", f"{file} is not valid TOML: {error}.") from None
    except OSError as error:
        raise LatticeError("config_invalid", f"{file} can't be read: {error.strerror}.") from None
    table.pop("gateway", None)  # `lattice up` may keep its own settings in the same file
    sections = {key.partition(".")[0] for key, _ in _keys() if "." in key}
    for name in sections & table.keys():
        if not isinstance(table[name], dict):
            raise LatticeError("config_invalid", f"`{name}` in {file} must be a table: write `[{name}]`.")
    return table


def _explain(message: str, file: Path | None, variables: Mapping[str, Any]) -> str:
    """msgspec's words without the value, with the key and where it stands."""
    at = _AT.search(message)
    path = at["path"] if at else ""
    said = _AT.sub("", message)
    unknown = _UNKNOWN.match(said)
    key = ".".join(part for part in (path, unknown["name"] if unknown else "") if part)
    place = f"from the environment ({variable(key)})" if key in variables or file is None else f"in {file}"
    if unknown:
        return f"unknown setting `{key}` {place}."
    if said.startswith("Invalid enum value"):
        said = "not one of the values that it can have"
    return f"`{key}` {place}: {said}."
