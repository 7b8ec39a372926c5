"""The real SmolLM2 through llama.cpp: the traps that the design names, each on the real thing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.engines.llama import LlamaEngine, LlamaModel
from lattice.runtime.models import DEFAULT_MODEL, fetched_path

pytestmark = [pytest.mark.model, pytest.mark.slow]

MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def path() -> Path:
    file = fetched_path(DEFAULT_MODEL)
    if not file.is_file():
        pytest.skip(f"no model at {file}: run `lattice-ctl models fetch`")
    pytest.importorskip("xllamacpp")
    return file


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[LlamaEngine]:
    model = LlamaModel(path, DEFAULT_MODEL.id, DEFAULT_MODEL.sha256, context=1024, temperature=0.2)
    engine = LlamaEngine(model)
    await engine.start()
    yield engine
    await engine.stop()


async def collect(reply: EngineReply) -> bytes:
    assert reply.events is not None
    try:
        return b"".join([b"".join(batch) async for batch in reply.events])
    finally:
        await reply.events.aclose()


async def test_it_offers_its_model_with_digest_and_no_tools(engine: LlamaEngine) -> None:
    (offer,) = await engine.offers()
    assert (offer.id, offer.digest, offer.tools) == (DEFAULT_MODEL.id, DEFAULT_MODEL.sha256, False)


async def test_it_answers_and_shows_no_path(engine: LlamaEngine, path: Path) -> None:
    body = {"model": DEFAULT_MODEL.id, "messages": MESSAGES, "max_tokens": 8}
    reply = await engine.chat(dict(body), stream=False)
    answer = msgspec.json.decode(reply.body)
    assert reply.status == 200
    assert answer["choices"][0]["message"]["content"]
    assert 0 < answer["usage"]["completion_tokens"] <= 8
    assert answer["model"] == DEFAULT_MODEL.id
    assert str(path).encode() not in reply.body


async def test_it_streams_with_usage(engine: LlamaEngine) -> None:
    body = {
        "model": DEFAULT_MODEL.id,
        "messages": MESSAGES,
        "max_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    data = await collect(await engine.chat(body, stream=True))
    assert b'"usage":{"completion_tokens":' in data
    assert data.rstrip().endswith(b"data: [DONE]")


async def test_the_small_models_temperature_is_low_unless_the_caller_says_otherwise(engine: LlamaEngine) -> None:
    for given, used in ((None, 0.2), (1.5, 1.5), (0, 0)):
        body = {
            "model": "m",
            "messages": MESSAGES,
            "max_tokens": 1,
            **({} if given is None else {"temperature": given}),
        }
        await engine.chat(body, stream=False)
        assert body["temperature"] == used


async def test_tools_are_refused(engine: LlamaEngine) -> None:
    body = {"model": "m", "messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}
    with pytest.raises(LatticeError, match="unsupported_parameter"):
        await engine.chat(body, stream=False)


async def test_closing_a_stream_frees_the_only_slot(engine: LlamaEngine) -> None:
    long = {"model": "m", "messages": MESSAGES, "max_tokens": 900, "stream": True, "ignore_eos": True}
    reply = await engine.chat(long, stream=True)
    assert reply.events is not None
    await reply.events.__anext__()
    await reply.events.aclose()
    short = {"model": "m", "messages": MESSAGES, "max_tokens": 1}
    async with asyncio.timeout(3):
        assert (await engine.chat(short, stream=False)).status == 200


async def test_a_child_that_was_killed_is_started_again(engine: LlamaEngine) -> None:
    assert engine._process is not None
    first = engine._process.pid
    engine._process.kill()
    await engine._process.wait()
    reply = await engine.chat({"model": "m", "messages": MESSAGES, "max_tokens": 1}, stream=False)
    assert reply.status == 200
    assert engine._process.pid != first


async def test_the_child_ends_with_its_engine(path: Path) -> None:
    engine = LlamaEngine(LlamaModel(path, "m", context=256))
    await engine.start()
    assert engine._process is not None
    pid = engine._process.pid
    await engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_embeddings(path: Path) -> None:
    engine = LlamaEngine(LlamaModel(path, "e", context=256, embedding=True))
    await engine.start()
    try:
        assert (await engine.offers())[0].tasks == ("embeddings",)
        reply = await engine.embeddings({"model": "e", "input": "hello"})
        assert len(msgspec.json.decode(reply.body)["data"][0]["embedding"]) == 576
    finally:
        await engine.stop()


async def test_another_file_under_the_default_name_is_refused(path: Path) -> None:
    engine = LlamaEngine(LlamaModel(path, DEFAULT_MODEL.id, expected_digest="00" * 32))
    with pytest.raises(LatticeError, match="model_digest_mismatch"):
        await engine.start()
