"""Which engine the settings ask for."""

from __future__ import annotations

from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import Engine
from lattice.runtime.engines.llama import LlamaEngine, LlamaModel
from lattice.runtime.engines.openai import OpenAIEngine
from lattice.runtime.engines.pair import EnginePair
from lattice.runtime.models import DEFAULT_MODEL, is_default_model, model_file, model_id
from lattice.runtime.settings import EngineSettings


def make_engine(settings: EngineSettings) -> Engine:
    """The engine, not started. No file is read yet except to know which model a path is."""
    if settings.kind == "openai":
        return _openai(settings)
    chat = LlamaEngine(_chat_model(settings))
    if settings.embedding_model is None:
        return chat
    path = settings.embedding_model.expanduser()
    embeddings = LlamaModel(
        path=path,
        model_id=path.stem.lower(),
        context=settings.context,
        parallel=settings.concurrency,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        embedding=True,
    )
    return EnginePair(chat, LlamaEngine(embeddings))


def _openai(settings: EngineSettings) -> OpenAIEngine:
    declared = tuple(
        ModelOffer(
            id=model.id,
            tasks=tuple(model.tasks),
            context=model.context,
            default_max_output_tokens=model.default_max_output_tokens,
            tools=model.tools,
        )
        for model in settings.models
    )
    if not settings.base_url.startswith(("http://", "https://")):
        raise LatticeError("config_invalid", "`engine.base_url` must start with http:// or https://.")
    key = settings.api_key.get_secret_value() if settings.api_key else None
    return OpenAIEngine(settings.base_url, key, declared, settings.default_model)


def _chat_model(settings: EngineSettings) -> LlamaModel:
    embedded = is_default_model(settings)
    return LlamaModel(
        path=model_file(settings),
        model_id=model_id(settings),
        # What is offered under the catalogue's name must be exactly the catalogue's model.
        expected_digest=DEFAULT_MODEL.sha256 if embedded else None,
        context=settings.context,
        parallel=settings.concurrency,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        # At llama.cpp's 0.8 a model this small rambles; its makers suggest 0.2.
        temperature=DEFAULT_MODEL.temperature if embedded else None,
    )
