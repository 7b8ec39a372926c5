"""The workloads of `benchmarks.encrypted_models`: example, packing, peers, and what must be reached."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from examples.models.breast_cancer.run import EXAMPLE as BREAST_CANCER
from examples.models.credit.run import EXAMPLE as CREDIT
from examples.models.example import Example
from examples.models.mnist_lenet.run import EXAMPLE as LENET
from examples.models.mnist_lola.run import EXAMPLE as LOLA
from examples.models.mnist_mlp.run import EXAMPLE as MLP
from examples.models.mnist_relu_mlp.run import EXAMPLE as RELU_MLP
from examples.models.sentiment.run import EXAMPLE as SENTIMENT
from examples.models.similarity.run import EXAMPLE as SIMILARITY
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.importers.load import load
from lattice.fhe.compiler.packing.coefficients import compile_linear
from lattice.fhe.compiler.packing.rows import compile_rows
from lattice.fhe.compiler.passes import simplify

Real = NDArray[np.floating[Any]]
ROWS = 4096
SEAL = ("tenseal-row:N=8192", "tenseal-row:N=4096, tuned", "tenseal-row:N=4096, its tutorial's")


class EncryptedSigmoid(Example):
    """The same model with 2p − 1 for the probability p: a sigmoid that is not last cannot be left to the client."""

    threshold = 0.0

    @property
    def onnx(self) -> bytes:
        """Ends in Mul and Sub."""
        model = onnx.load_model_from_string(super().onnx)
        graph = model.graph
        for kind, number in (("Mul", 2.0), ("Sub", 1.0)):
            graph.initializer.append(numpy_helper.from_array(np.array([number], np.float32), f"{kind}_number"))
            graph.node.append(helper.make_node(kind, [graph.output[0].name, f"{kind}_number"], [f"{kind}_out"]))
            graph.output[0].name = f"{kind}_out"
        return model.SerializeToString()


class Target(NamedTuple):
    """From the design's table; None where it names none."""

    ms: float | None = None
    key_bytes: float | None = None
    error: float | None = None
    rows_per_second: float | None = None


class Workload(NamedTuple):
    """One row of the table."""

    name: str
    title: str
    example: Example
    target: Target = Target()
    peers: tuple[str, ...] = ()
    """What `benchmarks.model_peers` calls them."""
    packing: str = ""
    """Of linear models: `coefficients` or `rows`; the compiler's choice unless said."""
    repeat: int = 1
    """The held-out samples are used so many times, where a batch needs more of them."""
    few: bool = False
    """Slow: accuracy on a thousand samples at the most."""
    whole: tuple[str, ...] = ("latency",)
    """The packings in which `benchmarks.whole_sets` runs it."""

    def compile(self) -> Compiled:
        """The encrypted program."""
        return linear(self.example, self.packing) if self.packing else self.example.compile()

    def samples(self, count: int) -> Real:
        """Held-out samples."""
        test = np.concatenate([self.example.data().test] * self.repeat)
        return test[: min(count, 1000) if self.few else count]

    def peer_arrays(self, count: int) -> dict[str, Real]:
        """What a peer needs: weights, and samples as its model takes them."""
        arrays = self.example.arrays()
        samples = self.samples(count).astype(np.float32)
        if "scale.mean" in arrays:
            samples = (samples - arrays["scale.mean"]) / arrays["scale.deviation"]
        return {**arrays, "samples": samples}

    def accuracy(self, values: Real, clear: Real) -> dict[str, Any]:
        """Encrypted beside plain, of scores on the same samples."""
        truth = np.concatenate([self.example.data().test_labels] * self.repeat)[: len(values)]
        found, plain = self.example.labels(values, 0.0), self.example.labels(clear, 0.0)
        return {
            "accuracy": float((found == truth).mean()),
            "plain_accuracy": float((plain == truth).mean()),
            "agreement": float((found == plain).mean()),
            "accuracy_samples": len(values),
        }


ALL: tuple[Workload, ...] = (
    Workload(
        "logistic-regression", "logistic regression, one row", BREAST_CANCER, Target(0.2, 0, 1e-5), SEAL, "coefficients"
    ),
    Workload(
        "logistic-regression-sigmoid",
        "the same, sigmoid encrypted too",
        EncryptedSigmoid(BREAST_CANCER.folder, BREAST_CANCER.data),
        Target(3.0),
    ),
    Workload(
        "logistic-regression-batch",
        "the same, 4096 rows",
        BREAST_CANCER,
        Target(rows_per_second=1e7, key_bytes=0),
        ("tenseal-batch",),
        packing="rows",
        repeat=29,
    ),
    Workload("sentiment", "sentiment, 384 features", SENTIMENT),
    Workload("credit", "credit, 26-32-16-1 with tanh", CREDIT, whole=("latency", "throughput")),
    Workload(
        "mlp",
        "MNIST MLP 784-128-128-10, square",
        MLP,
        Target(20, 12e6),
        ("orion-mlp",),
        whole=("latency", "throughput"),
    ),
    Workload("relu-mlp", "MNIST MLP 784-128-128-10, ReLU fitted", RELU_MLP, whole=("throughput",)),
    Workload("lola", "MNIST LoLA CNN", LOLA, Target(12, 10e6), ("orion-lola", "orion-lola-small")),
    Workload("lenet", "MNIST LeNet 32/64/512", LENET, Target(200, 80e6), ("orion-lenet",), few=True),
    Workload("similarity", "similarity search, 50,000 × 128", SIMILARITY, Target(250, 5e6), few=True),
)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in ALL}


def linear(example: Example, packing: str) -> Compiled:
    """A linear model without evaluation keys: for one row, or for 4096 at once."""
    imported = simplify(load(example.onnx))
    features = prepare(imported.before, example.data().train.astype(np.float64))
    seen = {
        "low": features.min(axis=0),
        "high": features.max(axis=0),
        "before": imported.before,
        "after": imported.after,
        "largest": float(np.abs(imported.graph.run(features)).max()),
    }
    if packing == "rows":
        return compile_rows(imported.graph, rows=ROWS, **seen)
    return compile_linear(imported.graph, **seen)
