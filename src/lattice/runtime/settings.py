"""The daemon's settings: one typed object. `settings_file` reads it from the environment and one TOML file.

msgspec and not pydantic-settings, which the design names: it keeps 13 MB out of the SDK's base install, where the
gateway's extra has pydantic anyway.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lattice.core.defaults import GATEWAY_URL
from lattice.runtime import paths

DEFAULT_LOCAL_PORT = 8411


class SecretText:
    """Text that shows itself to nobody who did not ask for it by name."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """The text."""
        return self._value

    def __repr__(self) -> str:
        return "**********"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of settings; a key that it does not know is an error."""


class ModelSettings(Section, frozen=True):
    """One model that the engine serves, where the engine can't tell us enough about it."""

    id: str
    tasks: tuple[Literal["chat", "embeddings"], ...] = ("chat",)
    tools: bool = True
    context: Annotated[int, Meta(ge=1)] | None = None
    default_max_output_tokens: Annotated[int, Meta(ge=1)] = 1024


class EngineSettings(Section, frozen=True):
    """The local model: a GGUF file through llama.cpp, or any OpenAI-compatible server."""

    kind: Annotated[Literal["llama", "openai"], Meta(description="llama: a GGUF file. openai: a local server.")] = (
        "llama"
    )
    base_url: Annotated[str, Meta(description="openai: the server's /v1 address (Ollama's here).")] = (
        "http://127.0.0.1:11434/v1"
    )
    api_key: Annotated[SecretText | None, Meta(description="openai: the server's own key, if it wants one.")] = None
    default_model: Annotated[
        str | None, Meta(description="openai: the model for requests that name only this machine.")
    ] = None
    models: Annotated[
        tuple[ModelSettings, ...], Meta(description="openai: serve only these; empty asks the server.")
    ] = ()
    model: Annotated[Path | None, Meta(description="llama: a GGUF file; unset takes the fetched SmolLM2-135M.")] = None
    model_id: Annotated[
        str | None, Meta(description="llama: public name of the model; unset derives it from the file.")
    ] = None
    embedding_model: Annotated[Path | None, Meta(description="llama: a second GGUF file that makes embeddings.")] = None
    context: Annotated[int, Meta(ge=256, description="llama: context tokens for each request.")] = 4096
    threads: Annotated[int, Meta(ge=0, description="llama: CPU threads, 0 lets llama.cpp choose.")] = 0
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="llama: layers on the GPU, unset lets llama.cpp choose."),
    ] = None
    concurrency: Annotated[int, Meta(ge=1, le=1024, description="Requests that run at once.")] = 2
    queue: Annotated[
        int, Meta(ge=0, le=65_536, description="Requests that may wait; more are refused with queue_full.")
    ] = 32


class LocalApiSettings(Section, frozen=True):
    """The OpenAI-compatible endpoint on loopback, for use without a gateway."""

    enabled: Annotated[bool, Meta(description="Serve /v1 and /status on loopback.")] = True
    host: Annotated[str, Meta(description="A loopback address; nothing else is accepted.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="0 picks a free port.")] = DEFAULT_LOCAL_PORT

    def __post_init__(self) -> None:
        try:
            loopback = self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError("`local_api.host` must be a loopback address: the endpoint asks for no credential")


class LogSettings(Section, frozen=True):
    """What the daemon writes to stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], Meta(description="auto: console on a terminal, else JSON.")
    ] = "auto"


class DaemonSettings(Section, frozen=True):
    """Everything that can be set; `lattice-ctl config show` prints each value with its source."""

    state_dir: Annotated[Path, Meta(description="Keys, pairing, allow-list, log.")] = msgspec.field(
        default_factory=paths.default_state_dir
    )
    gateway_url: Annotated[str, Meta(description="The gateway of `relay connect` and `ping`.")] = GATEWAY_URL
    allow_plain_http: Annotated[bool, Meta(description="Permit an http:// gateway on another machine: unsafe.")] = False
    engine: EngineSettings = EngineSettings()
    local_api: LocalApiSettings = LocalApiSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "state_dir", self.state_dir.expanduser().absolute())
