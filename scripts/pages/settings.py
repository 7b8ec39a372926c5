"""`docs/reference/settings-*.md`: every field of both settings objects."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lattice.cli.up import up
from lattice.gateway.settings import GatewaySettings
from lattice.runtime.settings import DaemonSettings, ModelSettings, SecretText
from lattice.runtime.settings_file import variable
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


def gateway_page() -> str:
    """The gateway's settings."""
    options = inspect.signature(up).parameters
    rows = [
        (
            code(name),
            code(f"LATTICE_GATEWAY_{name.upper()}"),
            code("--" + name.replace("_", "-")) if name in options else "",
            _default(field),
            _type(field),
            field.description or "",
        )
        for name, field in GatewaySettings.model_fields.items()
    ]
    columns = ("setting", "environment", "`lattice up`", "default", "type", "meaning")
    return heading("Gateway settings", "src/lattice/gateway/settings.py", _GATEWAY_INTRO) + "\n" + table(columns, rows)


def daemon_page() -> str:
    """The daemon's settings."""
    rows = [
        (
            code(key),
            code(variable(key)),
            _shown(default),
            ", ".join(_typed(annotation)),
            _described(annotation),
        )
        for key, annotation, default in _leaves(DaemonSettings)
    ]
    columns = ("setting", "environment", "default", "type", "meaning")
    page = heading("Daemon settings", "src/lattice/runtime/settings.py", _DAEMON_INTRO) + "\n" + table(columns, rows)
    return page + "\n" + _model_entries()


def _model_entries() -> str:
    rows = [
        (code(key), "required" if default is msgspec.NODEFAULT else _shown(default), ", ".join(_typed(annotation)))
        for key, annotation, default in _leaves(ModelSettings)
    ]
    intro = "## Entries of `engine.models`\n\nEach is a table, `[[engine.models]]` in the file.\n\n"
    return intro + table(("member", "default", "type"), rows)


def _leaves(section: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Key, annotation and default of every setting."""
    hints = typing.get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        annotation = hints[field.name]
        if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
            yield from _leaves(annotation, f"{prefix}{field.name}.")
        elif field.default_factory is not msgspec.NODEFAULT:
            yield prefix + field.name, annotation, _at_home(field.default_factory)
        else:
            yield prefix + field.name, annotation, field.default


def _described(annotation: Any) -> str:
    metas = getattr(annotation, "__metadata__", ())
    return next((meta.description for meta in metas if meta.description), "")


def _typed(annotation: Any) -> list[str]:
    """The type's name, then its limits; `Annotated` may be nested."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *_ = typing.get_args(annotation)
        return [*_typed(inner), *_limits(annotation.__metadata__)]
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if type(None) in typing.get_args(annotation) and len(arguments) == 1:
        return _typed(arguments[0])
    return [_type_name(annotation)]


def _default(field: FieldInfo) -> str:
    factory: Any = field.default_factory
    return _shown(field.default if factory is None else _at_home(factory))


def _at_home(factory: Callable[[], Any]) -> Any:
    """A default that depends on the home folder, in somebody else's."""
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


def _type(field: FieldInfo) -> str:
    return ", ".join([_type_name(field.annotation), *_limits(field.metadata)])


def _limits(rules: Iterable[Any]) -> list[str]:
    return [
        f"{sign} {limit}" for rule in rules for name, sign in _SIGNS if (limit := getattr(rule, name, None)) is not None
    ]


def _type_name(annotation: Any) -> str:
    arguments = [a for a in typing.get_args(annotation) if a is not type(None) and a is not Ellipsis]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(code(a) for a in arguments)
    if arguments:
        inner = " or ".join(_type_name(a) for a in arguments)
        return f"list of {inner}" if typing.get_origin(annotation) is tuple else inner
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}
    if annotation is SecretText:
        return "secret text"
    return names.get(annotation, "table")
