"""Operators of `ai.onnx.ml`, as skl2onnx writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lattice.fhe.compiler.client_part import After, ArgMax, Normalise, Sigmoid, Softmax, Threshold
from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value
from lattice.fhe.compiler.operations import Affine, Dense
from lattice.fhe.compiler.operations.sizes import refusal, size


def scaler(build: Builder, call: Call) -> Value:
    """(x − offset)·scale."""
    scale = np.asarray(call.attributes.get("scale", [1.0]), dtype=np.float64)
    offset = np.asarray(call.attributes.get("offset", [0.0]), dtype=np.float64)
    return build.add(call.name, Affine(scale, -offset * scale), call.tensor())


def normalizer(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    if call.attributes.get("norm", "MAX") != "L2" or build.nodes or tensor.after:
        raise refusal("only an L2 norm before everything else is supported.")
    build.before = (*build.before, Normalise())
    return tensor


def linear_classifier(build: Builder, call: Call) -> tuple[Value, Value]:
    tensor = call.tensor()
    weight, bias = _weights(call, size(tensor.shape))
    labels = tuple(_text(label) for label in call.attributes.get("classlabels_strings", ()))
    labels = labels or tuple(str(label) for label in call.attributes.get("classlabels_ints", ()))
    transform = call.attributes.get("post_transform", "NONE")
    if transform not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise refusal(f"its transform is {transform}; NONE, LOGISTIC and SOFTMAX are supported.")
    steps: list[After] = []
    if len(weight) == 2 and np.array_equal(weight[0], -weight[1]) and np.array_equal(bias[0], -bias[1]):
        # Two mirrored rows say one thing; softmax over them is the logistic function of their difference.
        factor = {"NONE": 1.0, "LOGISTIC": 1.0, "SOFTMAX": 2.0}[transform]
        weight, bias = weight[1:] * factor, bias[1:] * factor
    if len(weight) == 1:
        steps = [Threshold(0.0, labels)] if transform == "NONE" else [Sigmoid(), Threshold(0.5, labels)]
    else:
        steps = [*([Softmax()] if transform == "SOFTMAX" else []), ArgMax(labels)]
        if transform == "LOGISTIC":
            steps = [Sigmoid(), ArgMax(labels)]
    result = replace(build.add(call.name, Dense(weight, bias), tensor), after=tuple(steps))
    return result, result


def linear_regressor(build: Builder, call: Call) -> Value:
    if call.attributes.get("post_transform", "NONE") != "NONE":
        raise refusal("only no transform is supported.")
    tensor = call.tensor()
    return build.add(call.name, Dense(*_weights(call, size(tensor.shape))), tensor)


def zip_map(build: Builder, call: Call) -> Value:
    """Names for the probabilities; the labels have them already."""
    return call.tensor()


def array_feature_extractor(build: Builder, call: Call) -> Value:
    """classes[argmax]: the labels of the decision that the client makes."""
    classes, chosen = call.inputs[0], call.tensor(1)
    if isinstance(classes, Tensor) or classes is None or not chosen.after or not isinstance(chosen.after[-1], ArgMax):
        raise refusal("it does more than name the largest result.")
    return replace(chosen, after=(*chosen.after[:-1], ArgMax(tuple(_text(label) for label in classes.ravel()))))


def _weights(call: Call, inputs: int) -> tuple[Real, Real]:
    weight = np.asarray(call.attributes.get("coefficients", ()), dtype=np.float64)
    if not weight.size or weight.size % inputs:
        raise refusal(f"its {weight.size} coefficients do not fit {inputs} features.")
    weight = weight.reshape(-1, inputs)
    bias = np.asarray(call.attributes.get("intercepts", ()) or np.zeros(len(weight)), dtype=np.float64)
    if len(bias) != len(weight):
        raise refusal("its intercepts do not fit its coefficients.")
    return weight, bias


def _text(label: object) -> str:
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
