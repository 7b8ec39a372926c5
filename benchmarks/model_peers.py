"""One peer on one workload, in a process of its own: JSON on the last line of standard output.

`PYTHON -m benchmarks.model_peers orion-mlp weights.npz` with the interpreter of an environment that has the peer. The
file holds the model's arrays by their torch names and `samples`; so the peer needs none of our packages, and runs the
very weights that we run. Neither peer is a dependency of Lattice:

```
python3 -m venv PEERS && PEERS/bin/pip install torch tenseal 'scipy==1.14.1' PyYAML h5py tqdm certifi matplotlib
PEERS/bin/pip install --no-deps orion-fhe
```
orion-fhe wants torchvision for its data sets only, which are not used here: a stand-in is put in its place. It fails
with scipy past 1.14.1. Orion runs Lattigo; its keys and ciphertexts are counted as Lattigo would send them.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ["GOMAXPROCS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

CHAINS: dict[str, dict[str, Any]] = {
    "mlp": {"LogN": 13, "LogQ": [29] + 5 * [26], "LogP": [29, 29], "LogScale": 26, "H": 8192},
    "lola": {"LogN": 13, "LogQ": [29] + 5 * [26], "LogP": [29, 29], "LogScale": 26, "H": 8192},
    "lola-small": {"LogN": 13, "LogQ": [29] + 5 * [26], "LogP": [29, 29], "LogScale": 26, "H": 8192},
    "lenet": {"LogN": 14, "LogQ": [45] + 7 * [35], "LogP": [45, 45], "LogScale": 35},
}
"""Orion's own configurations of these models (`configs/` of its repository)."""
SEAL_CHAINS = {
    "N=4096, its tutorial's": (4096, [40, 20, 40], 20),
    "N=4096, tuned": (4096, [40, 28, 40], 28),
    "N=8192": (8192, [60, 40, 60], 40),
}


def milliseconds(times: list[float]) -> float:
    """The median."""
    return round(statistics.median(times) * 1e3, 4)


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came back."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def stages(count: int, encrypt: Callable[[int], Any], evaluate: Callable[[Any], Any], decrypt: Callable[[Any], Any]):
    """Time each stage on `count` samples after one that warms up, and collect the results."""
    taken: dict[str, list[float]] = {"encrypt": [], "evaluate": [], "decrypt": []}
    value: Any = None
    results = []
    for k in range(-1, count):
        for name, call in (("encrypt", encrypt), ("evaluate", evaluate), ("decrypt", decrypt)):
            value = max(k, 0) if name == "encrypt" else value
            seconds, value = clock(partial(call, value))
            if k >= 0:
                taken[name].append(seconds)
        if k >= 0:
            results.append(np.asarray(value, dtype=np.float64).reshape(-1))
    times = {f"{name}_ms": milliseconds(seconds) for name, seconds in taken.items()}
    return times, np.array(results)


# --- Orion ----------------------------------------------------------------------------------------------------------


def orion(model: str, arrays: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    """Orion's fit, compile, encrypt, forward under encryption and decrypt, as its examples do."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision"].datasets = sys.modules["torchvision.datasets"]
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    import orion
    import torch

    torch.set_num_threads(1)
    chain = {**CHAINS[model], "RingType": "ConjugateInvariant"}
    choices = {"margin": 2, "embedding_method": "hybrid", "backend": "lattigo", "fuse_modules": True, "debug": False}
    scheme = orion.init_scheme({"ckks_params": chain, "orion": {**choices, "io_mode": "none"}})
    net = _orion_network(model)
    if model != "lola-small":  # for which nobody has trained weights: its own random ones take as long
        net.load_state_dict({k: torch.from_numpy(array) for k, array in arrays.items() if "." in k}, strict=False)
    samples = torch.from_numpy(arrays["samples"])
    net.eval()
    with torch.no_grad():
        clear = net(samples[:count]).numpy()
        compile_seconds, level = clock(lambda: (orion.fit(net, samples[:1]), orion.compile(net))[1])
        steps: set[int] = set()
        rotate = scheme.evaluator.rotate
        scheme.evaluator.rotate = lambda *given: (steps.add(given[1]), rotate(*given))[1]
        net.he()
        times, results = stages(
            count,
            lambda k: orion.encrypt(orion.encode(samples[k : k + 1], level)),
            net,
            lambda out: out.decrypt().decode()[0].numpy(),
        )
    return {
        "peer": "Orion 1.0.2 (Lattigo)" + (", its 2 × 2 kernels" if model == "lola-small" else ""),
        **times,
        **_orion_sizes(scheme, chain, steps),
        "max_error": float(np.abs(results[:, : clear.shape[1]] - clear).max()),
        "compile_s": round(compile_seconds, 2),
    }


def _orion_network(model: str) -> Any:
    """Orion's own LoLA, "lola-small", has 2 × 2 kernels where the paper's, and ours, has 5 × 5."""
    import orion.models as models
    import orion.nn as on

    net = {"mlp": models.MLP, "lenet": models.LeNet}.get(model, models.LoLA)()
    if model == "lola":
        net.conv1 = on.Conv2d(1, 5, kernel_size=5, padding=1, stride=2)
        net.fc1 = on.Linear(845, 100)
    return net


def _orion_sizes(scheme: Any, chain: dict[str, Any], steps: set[int]) -> dict[str, Any]:
    """Rotation keys of the matrices, those of the folds after them, and the relinearisation key."""
    n = 1 << chain["LogN"]
    folds = {pow(5, step, 4 * n) for step in steps if step}
    serialised, pointer = scheme.backend.GenerateAndSerializeRotationKey(5)
    each = len(serialised)
    scheme.backend.FreeCArray(pointer)
    keys = len(scheme.lt_evaluator.saved_rotation_keys | folds) + 1
    return {
        "keys": keys,
        "key_bytes": keys * each,
        "matrix_key_bytes": len(scheme.lt_evaluator.saved_rotation_keys) * each,
        "ciphertext_bytes": 2 * len(chain["LogQ"]) * n * 8,
        "log_qp": sum(chain["LogQ"]) + sum(chain["LogP"]),
        "log_n": chain["LogN"],
    }


# --- TenSEAL --------------------------------------------------------------------------------------------------------


def tenseal_row(chain: str, arrays: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    """One row: a dot product with the weights and a sum of slots, as in TenSEAL's tutorial."""
    import tenseal as ts

    context = _tenseal_context(chain)
    samples = arrays["samples"].tolist()
    weights, bias = arrays["linear.weight"][0].tolist(), float(arrays["linear.bias"][0])
    times, results = stages(
        count,
        lambda k: ts.ckks_vector(context, samples[k]),
        lambda x: x.dot(weights) + [bias],  # noqa: RUF005
        lambda out: out.decrypt(),
    )
    clear = arrays["samples"][:count] @ arrays["linear.weight"].T + arrays["linear.bias"]
    sent = len(ts.ckks_vector(context, samples[0]).serialize())
    return {**_tenseal_sizes(chain, context), **times, "ciphertext_bytes": sent, "max_error": _worst(results, clear)}


def tenseal_batch(chain: str, arrays: dict[str, np.ndarray], count: int) -> dict[str, Any]:
    """4096 rows at once: one ciphertext a feature, rows in its slots, a matrix product with the weights."""
    import tenseal as ts

    context = _tenseal_context(chain)
    rows = SEAL_CHAINS[chain][0] // 2
    samples = np.resize(arrays["samples"], (rows, arrays["samples"].shape[1]))
    weights, bias = arrays["linear.weight"].T.tolist(), arrays["linear.bias"].tolist()
    plain = ts.plain_tensor(samples.reshape(-1).tolist(), [rows, 1, samples.shape[1]])
    times, results = stages(
        count,
        lambda _: ts.ckks_tensor(context, plain, batch=True),
        lambda x: x.mm(weights) + bias,
        lambda out: out.decrypt().tolist(),
    )
    clear = (samples @ arrays["linear.weight"].T + arrays["linear.bias"]).reshape(1, -1)
    sent = len(ts.ckks_tensor(context, plain, batch=True).serialize())
    found = {**_tenseal_sizes(chain, context), **times, "ciphertext_bytes": sent, "max_error": _worst(results, clear)}
    return {**found, "rows": rows, "rows_per_second": round(rows / found["evaluate_ms"] * 1e3), "key_bytes": 0}


def _tenseal_context(chain: str) -> Any:
    import tenseal as ts

    degree, bits, scale = SEAL_CHAINS[chain]
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, -1, bits, ts.ENCRYPTION_TYPE.SYMMETRIC, 1)
    context.global_scale = 1 << scale
    context.generate_galois_keys()
    return context


def _tenseal_sizes(chain: str, context: Any) -> dict[str, Any]:
    """What its serialisation of all keys adds to that of none."""
    degree, bits, _ = SEAL_CHAINS[chain]
    parts = {"save_public_key": False, "save_secret_key": False, "save_relin_keys": False}
    with_keys = len(context.serialize(**parts, save_galois_keys=True))
    without = len(context.serialize(**parts, save_galois_keys=False))
    return {
        "peer": f"TenSEAL 0.3.18 ({chain})",
        "key_bytes": with_keys - without,
        "log_qp": sum(bits),
        "log_n": degree.bit_length() - 1,
    }


def _worst(results: np.ndarray, clear: np.ndarray) -> float:
    return (
        float(np.abs(results.reshape(clear.shape) - clear).max())
        if len(results) == len(clear)
        else float(np.abs(results[0] - clear.reshape(-1)).max())
    )


# --- the process ----------------------------------------------------------------------------------------------------

WORKLOADS: dict[str, Callable[[dict[str, np.ndarray], int], dict[str, Any]]] = {
    **{f"orion-{model}": (lambda arrays, count, model=model: orion(model, arrays, count)) for model in CHAINS},
    **{f"tenseal-row:{c}": (lambda arrays, count, c=c: tenseal_row(c, arrays, count)) for c in SEAL_CHAINS},
    "tenseal-batch": lambda arrays, count: tenseal_batch("N=8192", arrays, count),
}


def main() -> None:
    """`WORKLOAD FILE COUNT`."""
    workload, path, count = sys.argv[1:4]
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    try:
        found = WORKLOADS[workload](arrays, int(count))
    except ImportError as fault:
        found = {"left_out": f"{workload}: {fault} ({sys.executable} has no such package)"}
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
