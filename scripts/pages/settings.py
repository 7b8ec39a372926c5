"""`docs/reference/settings-*.md`: every field of both settings objects."""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
from pydantic_core import PydanticUndefined

from lattice.cli.up import up
from lattice.gateway.settings import GatewaySettings
from lattice.runtime.settings import DaemonSettings, ModelSettings, SecretText
from scripts.pages.markdown import code, heading, table

_GATEWAY_INTRO = """
`lattice up` takes an option for the settings that have one, then the environment variable, then the default. None has
to be set. See [Run a gateway](../how-to/run-a-gateway.md).
"""

_DAEMON_INTRO = """
Settings come from `LATTICE_…` environment variables first, then from one file, then from the defaults. The file is
the one named by `--config`, else by `LATTICE_CONFIG_PATH`, else your own `config.toml` in `~/.config/lattice/` (or
`$XDG_CONFIG_HOME/lattice/`). `lattice-ctl config show` prints each value with its source. A key that does not exist
is an error, not a typo that passes.

A dot is a table in the file and two underscores in the environment: `engine.kind` is `kind` under `[engine]`, and
`LATTICE_ENGINE__KIND`. See [Use your Ollama](../how-to/use-your-ollama.md) for a whole file.
"""

_HOME = "/home/you"
_SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
_TYPES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}


class Setting(NamedTuple):
    """One setting, whichever library declares it."""

    key: str
    default: str
    type: str
    meaning: str


def gateway_page() -> str:
    """The gateway's settings."""
    options = inspect.signature(up).parameters
    rows = [
        (
            code(setting.key),
            code(f"LATTICE_GATEWAY_{setting.key.upper()}"),
            code("--" + setting.key.replace("_", "-")) if setting.key in options else "",
            *setting[1:],
        )
        for setting in _of_pydantic()
    ]
    columns = ("setting", "environment", "`lattice up`", "default", "type", "meaning")
    return heading("Gateway settings", "src/lattice/gateway/settings.py", _GATEWAY_INTRO) + "\n" + table(columns, rows)


def daemon_page() -> str:
    """The daemon's settings."""
    rows = [
        (code(setting.key), code("LATTICE_" + setting.key.replace(".", "__").upper()), *setting[1:])
        for setting in _of_msgspec(DaemonSettings)
    ]
    columns = ("setting", "environment", "default", "type", "meaning")
    page = heading("Daemon settings", "src/lattice/runtime/settings.py", _DAEMON_INTRO) + "\n" + table(columns, rows)
    entries = [(code(setting.key), setting.default, setting.type) for setting in _of_msgspec(ModelSettings)]
    intro = "\n## Entries of `engine.models`\n\nEach is a table, `[[engine.models]]` in the file.\n\n"
    return page + intro + table(("member", "default", "type"), entries)


def _of_pydantic() -> Iterator[Setting]:
    for name, field in GatewaySettings.model_fields.items():
        default = _made(field.default_factory) if field.default_factory else field.default
        limits = [limit for rule in field.metadata for limit in _limits(rule)]
        yield Setting(name, _shown(default), ", ".join([_name(field.annotation), *limits]), field.description or "")


def _of_msgspec(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[Setting]:
    annotations = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        annotation = annotations[field.name]
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            yield from _of_msgspec(annotation, f"{prefix}{field.name}.")
            continue
        rules = list(_rules(annotation))
        limits = [limit for rule in rules for limit in _limits(rule)]
        meaning = next((rule.description for rule in rules if rule.description), "")
        default = field.default if field.default_factory is msgspec.NODEFAULT else _made(field.default_factory)
        shown = "required" if field.required else _shown(default)
        yield Setting(prefix + field.name, shown, ", ".join([_name(annotation), *limits]), meaning)


def _rules(annotation: Any) -> Iterator[msgspec.Meta]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield from (rule for rule in annotation.__metadata__ if isinstance(rule, msgspec.Meta))
        annotation = annotation.__origin__
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _rules(argument)


def _made(factory: Any) -> Any:
    """What a default's factory makes for somebody whose home is `_HOME`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    with mock.patch.dict(os.environ, environment | {"HOME": _HOME}, clear=True):
        return factory()


def _shown(value: Any) -> str:
    if value is None or value is PydanticUndefined or value == () or value == "":
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(code(item) for item in value)
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(str(value).replace(_HOME, "~"))


def _name(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _name(annotation.__origin__)
    arguments = [a for a in typing.get_args(annotation) if a is not type(None) and a is not Ellipsis]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(code(a) for a in arguments)
    if arguments:
        inner = " or ".join(_name(a) for a in arguments)
        return f"list of {inner}" if typing.get_origin(annotation) is tuple else inner
    return "secret text" if annotation is SecretText else _TYPES.get(annotation, "table")


def _limits(rule: Any) -> Iterator[str]:
    for name, sign in _SIGNS:
        limit = getattr(rule, name, None)
        if limit is not None:
            yield f"{sign} {limit}"
