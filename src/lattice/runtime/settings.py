"""The daemon's settings: one typed object, one TOML file, one environment prefix.

Order, the first that gives a value wins: `LATTICE_…` variables (`LATTICE_ENGINE__KIND`), then one file (`--config`,
else `LATTICE_CONFIG_PATH`, else the user's config.toml), then the defaults below.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from lattice.core.defaults import GATEWAY_URL
from lattice.core.errors import LatticeError
from lattice.runtime import paths

CONFIG_VARIABLE = "LATTICE_CONFIG_PATH"
DEFAULT_LOCAL_PORT = 8411


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Section):
    """One model that the engine serves, where the engine can't tell us enough about it."""

    id: str
    tasks: tuple[Literal["chat", "embeddings"], ...] = ("chat",)
    tools: bool = True
    context: int | None = Field(default=None, ge=1)
    default_max_output_tokens: int = Field(default=1024, ge=1)


class EngineSettings(_Section):
    """The local model: a GGUF file through llama.cpp, or any OpenAI-compatible server."""

    kind: Literal["llama", "openai"] = Field(default="llama", description="llama: a GGUF file. openai: a local server.")
    base_url: str = Field(
        default="http://127.0.0.1:11434/v1", description="openai: the server's /v1 address (Ollama's here)."
    )
    api_key: SecretStr | None = Field(default=None, description="openai: the server's own key, if it wants one.")
    default_model: str | None = Field(
        default=None, description="openai: the model for requests that name only this machine."
    )
    models: tuple[ModelSettings, ...] = Field(
        default=(), description="openai: serve only these; empty asks the server."
    )
    model: Path | None = Field(default=None, description="llama: a GGUF file; unset takes the fetched SmolLM2-135M.")
    model_id: str | None = Field(
        default=None, description="llama: public name of the model; unset derives it from the file."
    )
    embedding_model: Path | None = Field(default=None, description="llama: a second GGUF file that makes embeddings.")
    context: int = Field(default=4096, ge=256, description="llama: context tokens for each request.")
    threads: int = Field(default=0, ge=0, description="llama: CPU threads, 0 lets llama.cpp choose.")
    gpu_layers: int | None = Field(
        default=None, ge=0, description="llama: layers on the GPU, unset lets llama.cpp choose."
    )
    concurrency: int = Field(default=2, ge=1, le=1024, description="Requests that run at once.")
    queue: int = Field(
        default=32, ge=0, le=65_536, description="Requests that may wait; more are refused with queue_full."
    )


class LocalApiSettings(_Section):
    """The OpenAI-compatible endpoint on loopback, for use without a gateway."""

    enabled: bool = Field(default=True, description="Serve /v1 and /status on loopback.")
    host: str = Field(default="127.0.0.1", description="A loopback address; nothing else is accepted.")
    port: int = Field(default=DEFAULT_LOCAL_PORT, ge=0, le=65_535, description="0 picks a free port.")

    @field_validator("host")
    @classmethod
    def _loopback(cls, host: str) -> str:
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError("must be a loopback address: the endpoint asks for no credential")
        return host


class LogSettings(_Section):
    """What the daemon writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else JSON."
    )


class DaemonSettings(BaseSettings):
    """Everything that can be set; `lattice-ctl config show` prints each value with its source."""

    model_config = SettingsConfigDict(
        env_prefix="LATTICE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    state_dir: Path = Field(default_factory=paths.default_state_dir, description="Keys, pairing, allow-list, log.")
    gateway_url: str = Field(default=GATEWAY_URL, description="The gateway of `relay connect` and `ping`.")
    allow_plain_http: bool = Field(default=False, description="Permit an http:// gateway on another machine: unsafe.")
    engine: EngineSettings = Field(default_factory=EngineSettings)
    local_api: LocalApiSettings = Field(default_factory=LocalApiSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("state_dir")
    @classmethod
    def _expand(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes above the file, which `load_settings` hands in as init values."""
        return env_settings, init_settings


class LoadedSettings(NamedTuple):
    """Settings, the file they came from, and the source of each dotted key."""

    settings: DaemonSettings
    file: Path | None
    sources: dict[str, str]


def load_settings(config: Path | None = None) -> LoadedSettings:
    """Read the settings, or raise `config_invalid` naming the key and the file; values are never echoed."""
    file = _config_file(config)
    table = _read_toml(file) if file else {}
    try:
        settings = DaemonSettings(**table)
        environment = EnvSettingsSource(DaemonSettings)()
    except ValidationError as error:
        raise LatticeError("config_invalid", _explain(error, file, table)) from None
    except ValueError as error:  # pydantic-settings: a variable that should hold JSON does not
        raise LatticeError("config_invalid", f"A LATTICE_… variable can't be read: {error}.") from None
    sources = dict.fromkeys(flatten(settings.model_dump()), "default")
    sources |= {key: str(file) for key in flatten(table) if key in sources}
    sources |= {key: _variable(key) for key in flatten(environment) if key in sources}
    return LoadedSettings(settings, file, sources)


class SettingRow(msgspec.Struct, frozen=True):
    """One setting as `config show` prints it."""

    key: str
    value: Any
    source: str
    description: str


def describe(loaded: LoadedSettings) -> list[SettingRow]:
    """Every setting with its value (secrets masked), source and meaning."""
    values = flatten(loaded.settings.model_dump(mode="json"))
    return [SettingRow(key, values[key], source, _description(key)) for key, source in loaded.sources.items()]


def _description(key: str) -> str:
    model: type[BaseModel] = DaemonSettings
    description = ""
    for step in key.split("."):
        field = model.model_fields[step]
        description = field.description or ""
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return description


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


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
    for name, value in table.items():
        field = DaemonSettings.model_fields.get(name)
        is_section = field is not None and isinstance(field.default_factory, type)
        if is_section and not isinstance(value, dict):
            raise LatticeError("config_invalid", f"`{name}` in {file} must be a table: write `[{name}]`.")
    return table


def _variable(key: str) -> str:
    return "LATTICE_" + key.replace(".", "__").upper()


def _explain(error: ValidationError, file: Path | None, table: dict[str, Any]) -> str:
    parts = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(step) for step in item["loc"])
        known = flatten(table)
        in_file = any(name == key or name.startswith(key + ".") or key.startswith(name + ".") for name in known)
        place = f"in {file}" if file and in_file else f"from the environment ({_variable(key)})"
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown setting `{key}` {place}")
        else:
            parts.append(f"`{key}` {place}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts) + "."
