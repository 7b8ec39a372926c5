"""`docs/reference/settings-*.md`: every field of both settings objects."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lattice.cli.up import up
from lattice.gateway.settings import GatewaySettings
from lattice.runtime.settings import DaemonSettings
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
            code("LATTICE_" + key.replace(".", "__").upper()),
            _default(field),
            _type(field),
            field.description or "",
        )
        for key, field in _leaves(DaemonSettings)
    ]
    columns = ("setting", "environment", "default", "type", "meaning")
    page = heading("Daemon settings", "src/lattice/runtime/settings.py", _DAEMON_INTRO) + "\n" + table(columns, rows)
    return page + "\n" + _model_entries()


def _model_entries() -> str:
    from lattice.runtime.settings import ModelSettings

    rows = [
        (code(name), "required" if field.is_required() else _default(field), _type(field))
        for name, field in ModelSettings.model_fields.items()
    ]
    intro = "## Entries of `engine.models`\n\nEach is a table, `[[engine.models]]` in the file.\n\n"
    return intro + table(("member", "default", "type"), rows)


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _leaves(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        with mock.patch.dict(os.environ, environment | {"HOME": _HOME}, clear=True):
            value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or value == () or value == "":
        return "unset"
    if isinstance(value, tuple):
        return ", ".join(code(item) for item in value)
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(str(value).replace(_HOME, "~"))


def _type(field: FieldInfo) -> str:
    limits = [str(limit) for limit in map(_limit, field.metadata) if limit]
    return ", ".join([_type_name(field.annotation), *limits])


def _type_name(annotation: Any) -> str:
    arguments = [a for a in typing.get_args(annotation) if a is not type(None) and a is not Ellipsis]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(code(a) for a in arguments)
    if arguments:
        inner = " or ".join(_type_name(a) for a in arguments)
        return f"list of {inner}" if typing.get_origin(annotation) is tuple else inner
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}
    if annotation is SecretStr:
        return "secret text"
    return names.get(annotation, "table")


def _limit(rule: Any) -> str | None:
    signs = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
    return next((f"{sign} {getattr(rule, name)}" for name, sign in signs if hasattr(rule, name)), None)
