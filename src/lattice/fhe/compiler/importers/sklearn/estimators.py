"""Estimators that end a pipeline: linear ones, support vectors, MLPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.fhe.compiler.client_part import AppendSquaredLength, ArgMax, Sigmoid, Softmax, Threshold, Vote
from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.importers.sklearn.chain import Chain, fitted, labels, numbers
from lattice.fhe.compiler.operations import Activation, Dense, Power, Square, Sum
from lattice.fhe.compiler.operations.sizes import bounded, refusal


def regressor(chain: Chain, name: str, model: Any) -> None:
    """coef·x + intercept."""
    chain.add(name, _layer(model))


def classifier(chain: Chain, name: str, model: Any) -> None:
    """A decision function: the sign, or the largest."""
    layer = _layer(model)
    chain.add(name, layer)
    chain.after.append(Threshold(0.0, labels(model)) if len(layer.bias) == 1 else ArgMax(labels(model)))


def logistic(chain: Chain, name: str, model: Any) -> None:
    """Probabilities too."""
    if getattr(model, "multi_class", "auto") == "ovr" and len(labels(model)) > 2:
        raise refusal("multi_class='ovr' is not supported; multinomial is.")
    layer = _layer(model)
    chain.add(name, layer)
    if len(layer.bias) == 1:
        chain.after += [Sigmoid(), Threshold(0.5, labels(model))]
    else:
        chain.after += [Softmax(), ArgMax(labels(model))]


def _layer(model: Any) -> Dense:
    weight = np.atleast_2d(numbers(model, "coef_"))
    bias = np.broadcast_to(np.atleast_1d(numbers(model, "intercept_")).ravel(), len(weight)).copy()
    return Dense(weight, bias)


def vector_classifier(chain: Chain, name: str, model: Any) -> None:
    """SVC and NuSVC: one decision for each pair of classes."""
    names = labels(model)
    _support_vectors(chain, name, model, _pair_weights(model, len(names)))
    chain.after.append(Threshold(0.0, names) if len(names) == 2 else Vote(names))


def vector_regressor(chain: Chain, name: str, model: Any) -> None:
    """SVR."""
    _support_vectors(chain, name, model, numbers(model, "dual_coef_"))


def _pair_weights(model: Any, classes: int) -> Real:
    """`[pairs, vectors]`: libsvm keeps, for a vector of class i, its weights against every other class."""
    dual = numbers(model, "dual_coef_")
    if classes == 2:
        return dual
    ends = np.cumsum(fitted(model, "n_support_"))
    of_class = [slice(end - count, end) for end, count in zip(ends, fitted(model, "n_support_"), strict=True)]
    rows = []
    for first in range(classes):
        for second in range(first + 1, classes):
            row = np.zeros(dual.shape[1])
            row[of_class[first]] = dual[second - 1, of_class[first]]
            row[of_class[second]] = dual[first, of_class[second]]
            rows.append(row)
    return np.array(rows)


def _support_vectors(chain: Chain, name: str, model: Any, weight: Real) -> None:
    """Σ weight·kernel(x, vector) + intercept."""
    vectors, bias = numbers(model, "support_vectors_"), numbers(model, "intercept_").ravel()
    bounded(len(vectors) * len(weight), "The dual weights")
    if model.kernel == "linear":
        chain.add(name, Dense(weight @ vectors, bias))
        return
    gamma = float(fitted(model, "_gamma"))
    if model.kernel == "poly":
        _polynomial(chain, name, (gamma * vectors, float(model.coef0), int(model.degree)), weight, bias)
    elif model.kernel == "rbf":
        _gaussian(chain, name, gamma, vectors)
        chain.add(f"{name}.exp", Activation("exp"))
        chain.add(f"{name}.decision", Dense(weight, bias))
    else:
        raise refusal(f"the kernel {model.kernel!r} is not supported; linear, poly and rbf are.")


def _polynomial(chain: Chain, name: str, kernel: tuple[Real, float, int], weight: Real, bias: Real) -> None:
    """Σ weight·(vectors·x + shift)^degree."""
    vectors, shift, degree = kernel
    if degree == 1:
        chain.add(name, Dense(weight @ vectors, bias + shift * weight.sum(axis=1)))
        return
    if degree == 2 and len(weight) == 1 and len(vectors) > vectors.shape[1] + 1:
        # A quadratic form in (x, 1): its eigenvectors are as good as, and fewer than, the support vectors.
        full = np.hstack([vectors, np.full((len(vectors), 1), shift)])
        values, axes = np.linalg.eigh((full * weight[0][:, None]).T @ full)
        chain.add(f"{name}.kernel", Dense(axes.T[:, :-1].copy(), axes.T[:, -1].copy()))
        chain.add(f"{name}.square", Square())
        chain.add(f"{name}.decision", Dense(values[None, :], bias))
        return
    chain.add(f"{name}.kernel", Dense(vectors, np.full(len(vectors), shift)))
    chain.add(f"{name}.power", Square() if degree == 2 else Power(degree))
    chain.add(f"{name}.decision", Dense(weight, bias))


def _gaussian(chain: Chain, name: str, gamma: float, vectors: Real) -> None:
    """−γ‖x − v‖² for every vector: ‖x‖² comes from the client, or from squares where x is scaled first."""
    squared = np.einsum("ij,ij->i", vectors, vectors)
    linear = 2 * gamma * vectors
    if chain.raw and not chain.before:
        chain.before.append(AppendSquaredLength())
        weight = np.hstack([linear, np.full((len(vectors), 1), -gamma)])
        chain.add(f"{name}.distance", Dense(weight, -gamma * squared))
        return
    features = chain.last
    squares = chain.add(f"{name}.square", Square())
    length = chain.add(f"{name}.length", Dense(np.full((len(vectors), chain.width), -gamma), 0 * squared), squares)
    product = chain.add(f"{name}.product", Dense(linear, -gamma * squared), features)
    chain.add(f"{name}.distance", Sum(), length, product)


ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid"}


def perceptron(chain: Chain, name: str, model: Any) -> None:
    """MLPClassifier and MLPRegressor."""
    weights, biases = fitted(model, "coefs_"), fitted(model, "intercepts_")
    if model.activation not in (*ACTIVATIONS, "identity"):
        raise refusal(f"the activation {model.activation!r} is not known.")
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        matrix, shift = np.asarray(weight, dtype=np.float64).T, np.asarray(bias, dtype=np.float64)
        chain.add(f"{name}.layer{index + 1}", Dense(matrix, shift))
        if index + 1 < len(weights) and model.activation != "identity":
            chain.add(f"{name}.{model.activation}{index + 1}", Activation(ACTIVATIONS[model.activation]))
    end = fitted(model, "out_activation_")
    if not hasattr(model, "classes_"):
        if end != "identity":
            raise refusal(f"the output function {end!r} is not supported.")
        return
    names = labels(model)
    if end == "softmax":
        chain.after += [Softmax(), ArgMax(names)]
    elif len(biases[-1]) == 1:
        chain.after += [Sigmoid(), Threshold(0.5, names)]
    else:
        raise refusal("several labels for one sample are not supported.")
