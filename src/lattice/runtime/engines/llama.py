"""A GGUF file through llama.cpp: a child process with an OpenAI server on loopback, spoken to by the openai engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.engines.openai import OpenAIEngine
from lattice.runtime.models import digest_of

LOAD_TIMEOUT_S = 600
CHILD = Path(__file__).with_name("llama_child.py")


class LlamaModel(msgspec.Struct, frozen=True):
    """What to load. `temperature` is used where the caller gives none; `embedding` serves embeddings and no chat."""

    path: Path
    model_id: str
    expected_digest: str | None = None
    context: int = 4096
    parallel: int = 1
    threads: int = 0
    gpu_layers: int | None = None
    temperature: float | None = None
    embedding: bool = False


class LlamaEngine:
    """One model in one child process. A child that dies is started again by the next request."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._process: asyncio.subprocess.Process | None = None
        self._client: OpenAIEngine | None = None
        self._tools = False
        self._digest: str | None = None
        self._starting = asyncio.Lock()

    @property
    def name(self) -> str:
        """What the status shows."""
        return f"llama with {self._model.path.name}"

    async def start(self) -> None:
        """Load the model; `engine_unavailable` says what is missing."""
        async with self._starting:
            if self._alive():
                return
            await self._end()
            if not self._model.path.is_file():
                message = f"The model file {self._model.path} is not there. Fetch it: `lattice-ctl models fetch`."
                raise LatticeError("engine_unavailable", message)
            try:
                await self._launch()
                await self._check_digest()
            except BaseException:
                await self._end()
                raise

    async def stop(self) -> None:
        """End the child."""
        async with self._starting:
            await self._end()

    async def offers(self) -> tuple[ModelOffer, ...]:
        """The one model."""
        if not self._alive():
            await self.start()
        task = "embeddings" if self._model.embedding else "chat"
        return (
            ModelOffer(
                id=self._model.model_id,
                tasks=(task,),
                digest=self._digest,
                context=self._model.context,
                default_max_output_tokens=min(1024, self._model.context // 2),
                tools=self._tools,
            ),
        )

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        """Chat; tools are refused where the model's template has no place for them, since llama.cpp drops them."""
        if not self._tools and (member := _tool_member(body)):
            message = f"`{member}`: the chat template of {self._model.model_id} has no tools."
            raise LatticeError("unsupported_parameter", message)
        if self._model.temperature is not None and body.get("temperature") is None:
            body["temperature"] = self._model.temperature
        return await (await self._ready()).chat(body, stream=stream)

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        """Embeddings, from a model loaded for them."""
        if not self._model.embedding:
            message = f"{self._model.model_id} is loaded for chat and makes no embeddings."
            raise LatticeError("unsupported_parameter", message)
        return await (await self._ready()).embeddings(body)

    async def _ready(self) -> OpenAIEngine:
        if not self._alive():
            await self.start()
        if self._client is None:
            raise LatticeError("engine_unavailable", "The model is being stopped.")
        return self._client

    def _alive(self) -> bool:
        return self._process is not None and self._process.returncode is None and self._client is not None

    async def _check_digest(self) -> None:
        model = self._model
        self._digest = await asyncio.to_thread(digest_of, model.path)
        if model.expected_digest is not None and self._digest != model.expected_digest:
            message = f"{model.path} is not the file that {model.model_id} must be: its SHA-256 is {self._digest}."
            raise LatticeError("model_digest_mismatch", message)

    async def _launch(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # keeps this folder off the import path
            str(CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # llama.cpp floods it, and prints the model's path
            start_new_session=True,  # a Ctrl-C on the terminal is the daemon's to handle: it drains first
        )
        api_key = secrets.token_urlsafe(32)
        address = await self._handshake(self._process, api_key)
        self._client = OpenAIEngine(f"{address}/v1", api_key)
        await self._client.start()
        self._tools = not self._model.embedding and await _template_has_tools(address, api_key)

    async def _handshake(self, process: asyncio.subprocess.Process, api_key: str) -> str:
        if process.stdin is None or process.stdout is None:
            raise LatticeError("engine_unavailable", "The model's process has no pipes.")
        model = self._model
        order = {
            "path": str(model.path),
            "alias": model.model_id,
            "api_key": api_key,
            "parallel": model.parallel,
            "context": model.context,
            "threads": model.threads,
            "gpu_layers": model.gpu_layers,
            "embedding": model.embedding,
        }
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            line = await asyncio.wait_for(process.stdout.readline(), LOAD_TIMEOUT_S)
            answer = json.loads(line)
        except TimeoutError:
            raise LatticeError("engine_unavailable", "The model took too long to load.") from None
        except (ValueError, OSError):
            raise LatticeError("engine_unavailable", "llama.cpp crashed while it loaded the model.") from None
        if "address" not in answer:
            raise LatticeError("engine_unavailable", f"{answer.get('error')} ({model.path.name}).")
        return str(answer["address"])

    async def _end(self) -> None:
        process, self._process = self._process, None
        client, self._client = self._client, None
        if client is not None:
            await client.stop()
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _tool_member(body: dict[str, Any]) -> str | None:
    for member in ("tools", "functions"):
        if body.get(member):
            return member
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and (message.get("tool_calls") or message.get("role") in ("tool", "function")):
            return "messages"
    return None


async def _template_has_tools(address: str, api_key: str) -> bool:
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        async with (
            aiohttp.ClientSession(headers=headers, trust_env=False) as session,
            session.get(f"{address}/props", timeout=aiohttp.ClientTimeout(total=30)) as response,
        ):
            caps = (await response.json()).get("chat_template_caps") or {}
    except (aiohttp.ClientError, ValueError, TimeoutError):
        raise LatticeError("engine_unavailable", "llama.cpp loaded the model and does not answer.") from None
    return bool(caps.get("supports_tools") or caps.get("supports_tool_calls"))
