"""The llama engine where no model is needed: what is missing, broken or unsupported. tests/system has the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.engines import llama as module
from lattice.runtime.engines.choice import make_engine
from lattice.runtime.engines.llama import LlamaEngine, LlamaModel
from lattice.runtime.engines.openai import OpenAIEngine
from lattice.runtime.engines.pair import EnginePair
from lattice.runtime.models import DEFAULT_MODEL
from lattice.runtime.settings import EngineSettings, ModelSettings

MESSAGES = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"messages": [*MESSAGES, {"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages"),
    ],
)
async def test_tools_are_refused_and_never_dropped_where_the_template_has_none(
    body: dict[str, Any], member: str
) -> None:
    engine = LlamaEngine(LlamaModel(Path("none"), "m"))
    with pytest.raises(LatticeError) as caught:
        await engine.chat({"messages": MESSAGES, **body}, stream=False)
    assert caught.value.code == "unsupported_parameter"
    assert f"`{member}`" in caught.value.message


@pytest.mark.parametrize("body", [{"tools": []}, {"tools": None}, {"messages": "nonsense"}, {"messages": [1]}])
async def test_nothing_is_refused_that_asks_for_no_tools(body: dict[str, Any]) -> None:
    engine = LlamaEngine(LlamaModel(Path("none"), "m"))
    with pytest.raises(LatticeError) as caught:
        await engine.chat({"messages": MESSAGES, **body}, stream=False)
    assert caught.value.code == "engine_unavailable"


async def test_embeddings_need_a_model_for_them() -> None:
    with pytest.raises(LatticeError) as caught:
        await LlamaEngine(LlamaModel(Path("none"), "m")).embeddings({"input": "x"})
    assert caught.value.code == "unsupported_parameter"


async def test_a_missing_file_says_how_to_get_it() -> None:
    with pytest.raises(LatticeError, match="models fetch"):
        await LlamaEngine(LlamaModel(Path("/none.gguf"), "m")).start()


async def test_a_file_that_is_no_model_is_refused_and_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))
    engine = LlamaEngine(LlamaModel(broken, "m"))
    with pytest.raises(LatticeError) as caught:
        await engine.start()
    assert caught.value.code == "engine_unavailable"
    assert "broken.gguf" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert engine._process is None


async def test_a_child_that_says_nothing_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"x")
    monkeypatch.setattr(module.sys, "executable", "/bin/true")
    with pytest.raises(LatticeError, match="crashed"):
        await LlamaEngine(LlamaModel(model, "m")).start()


def test_the_settings_choose_the_engine(tmp_path: Path) -> None:
    assert isinstance(make_engine(EngineSettings(kind="openai")), OpenAIEngine)
    assert isinstance(make_engine(EngineSettings()), LlamaEngine)
    assert isinstance(make_engine(EngineSettings(embedding_model=tmp_path / "e.gguf")), EnginePair)
    with pytest.raises(LatticeError, match="base_url"):
        make_engine(EngineSettings(kind="openai", base_url="localhost:1"))


async def test_declared_models_are_offered() -> None:
    settings = EngineSettings(kind="openai", models=(ModelSettings(id="m", tools=False, context=99),))
    offer = (await make_engine(settings).offers())[0]
    assert (offer.id, offer.tools, offer.context) == ("m", False, 99)


def test_only_the_default_model_has_the_default_name_digest_and_temperature(tmp_path: Path) -> None:
    default = make_engine(EngineSettings())
    other = make_engine(EngineSettings(model=tmp_path / "Big.gguf"))
    renamed = make_engine(EngineSettings(model=tmp_path / DEFAULT_MODEL.file, model_id="mine"))
    assert isinstance(default, LlamaEngine)
    assert isinstance(other, LlamaEngine)
    assert isinstance(renamed, LlamaEngine)
    assert default._model.model_id == "smollm2-135m-instruct"
    assert (default._model.temperature, default._model.expected_digest) == (0.2, DEFAULT_MODEL.sha256)
    assert (other._model.model_id, other._model.temperature, other._model.expected_digest) == ("big", None, None)
    assert (renamed._model.model_id, renamed._model.expected_digest) == ("mine", None)
