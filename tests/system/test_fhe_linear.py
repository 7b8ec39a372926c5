"""Logistic regression from scikit-learn to an encrypted answer: no evaluation key, small messages, few microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lattice.fhe.client_side import client_keys, decrypt, encrypt
from lattice.fhe.compiler.compile import compile
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.run import Blinding, Session, evaluate, prepare
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import encode_public_key

sklearn = pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, np.ndarray, np.ndarray]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_breast_cancer(return_X_y=True)
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels), features, labels


def test_breast_cancer_row_by_row(fitted: tuple[Any, np.ndarray, np.ndarray]) -> None:
    pipeline, features, labels = fitted
    model = compile(pipeline, features, labels=labels)
    assert model.keys == ()
    answer = Session(model).run(features)
    assert np.abs(answer.values[:, 0] - pipeline.predict_proba(features)[:, 1]).max() < 1e-5
    assert answer.labels is not None
    assert (np.asarray(answer.labels).astype(int) == pipeline.predict(features)).all()


def test_messages_are_small(fitted: tuple[Any, np.ndarray, np.ndarray]) -> None:
    pipeline, features, labels = fitted
    model = compile(pipeline, features, labels=labels)
    keys, prepared = client_keys(model), prepare(model)
    (query,) = encrypt(model.client, model.params, keys.secret, features[:1])
    (reply,) = evaluate(prepared, None, keys.public, [query], Blinding(bytes(32), b"request"))
    sent = len(encode_ciphertext(query, model.params)) + len(encode_public_key(keys.public, model.params))
    assert sent <= 32 << 10
    assert len(encode_ciphertext(reply, model.params)) <= 32 << 10
    assert decrypt(model.client, model.params, keys.secret, [reply], 1).values.shape == (1, 1)


def test_breast_cancer_in_bulk(fitted: tuple[Any, np.ndarray, np.ndarray]) -> None:
    pipeline, features, labels = fitted
    model = compile(pipeline, features, labels=labels, options=Options(batch=4096))
    assert model.client.batch == 4096
    assert model.keys == ()
    rows = features[np.arange(4096) % len(features)]
    answer = Session(model).run(rows)
    assert np.abs(answer.values[:, 0] - pipeline.predict_proba(rows)[:, 1]).max() < 1e-5
