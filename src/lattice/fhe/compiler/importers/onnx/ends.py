"""What comes after the last layer and is done by the client: Softmax, ArgMax, TopK, comparisons."""

from __future__ import annotations

from dataclasses import replace

from lattice.fhe.compiler.client_part import After, ArgMax, Largest, LogSoftmax, Softmax, Threshold
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value, scalar
from lattice.fhe.compiler.operations.sizes import refusal, size


def softmax(build: Builder, call: Call) -> Value:
    tensor = _results(call, -1 if call.opset >= 13 else 1)
    step: After = Softmax() if call.operator == "Softmax" else LogSoftmax()
    return _then(build, call, tensor, step)


def argmax(build: Builder, call: Call) -> Value:
    if call.attributes.get("select_last_index"):
        raise refusal("it asks for the last of equal results; the client takes the first.")
    return _then(build, call, _results(call, 0), ArgMax())


def top_k(build: Builder, call: Call) -> tuple[Value, Value]:
    tensor = _results(call, -1)
    count = int(scalar(call.constant(1)) if call.has(1) else call.attributes.get("k", 0))
    if not 1 <= count <= size(tensor.shape):
        raise refusal(f"it asks for {count} of {size(tensor.shape)} results.")
    result = _then(build, call, tensor, Largest(count, not call.attributes.get("largest", 1)))
    return result, result


def greater(build: Builder, call: Call) -> Value:
    tensor = call.tensor(0)
    if size(tensor.shape) != 1:
        raise refusal("it compares more than one result with a constant.")
    return _then(build, call, tensor, Threshold(scalar(call.constant(1)), ("0", "1")))


def _results(call: Call, default: int) -> Tensor:
    """The input, if its results lie along the axis that the operator works on and along no other."""
    tensor = call.tensor(0)
    rank = len(tensor.shape) + 1
    axis = int(call.attributes.get("axis", default)) % rank
    if axis == 0 or size(tensor.shape) != tensor.shape[axis - 1]:
        raise refusal("it does not work over all the results of a sample at once.")
    return tensor


def _then(build: Builder, call: Call, tensor: Tensor, step: After) -> Tensor:
    if any(isinstance(done, ArgMax | Threshold | Largest) for done in tensor.after):
        raise refusal("it follows a decision that the client has made already.")
    return replace(tensor, after=(*tensor.after, step))
