"""The process that holds llama.cpp. It is run as a file, imports nothing of Lattice, and is told what to load on stdin.

A process of its own, because xllamacpp holds the interpreter lock while it loads a model, because a crash in native
code must not take the daemon along, and because its memory goes back at once when it ends. It ends when its stdin
closes, so it never outlives the daemon.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Load, print one JSON line with the address or the error, serve until stdin closes."""
    order = json.loads(sys.stdin.readline())
    try:
        server = _serve(order)
        answer = {"address": server.listening_address}
    except ImportError:
        answer = {"error": "xllamacpp is not installed: install Lattice with its `llama` extra"}
    except Exception:
        answer = {"error": "llama.cpp could not load the model file"}
    print(json.dumps(answer), flush=True)
    if "address" in answer:
        sys.stdin.read()
    os._exit(0)  # the native server's threads would keep a normal exit waiting


def _serve(order: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.verbosity = -1
    params.model.path = order["path"]
    params.model_alias = {order["alias"]}  # without it every answer names the file's path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [order["api_key"]]
    params.n_parallel = order["parallel"]
    params.n_ctx = order["context"] * order["parallel"]  # llama.cpp divides it among the slots
    params.ui = False
    params.endpoint_slots = False  # it would show other callers' prompts
    params.cpuparams.poll = 0  # no busy waiting on somebody's laptop
    if order["threads"]:
        params.cpuparams.n_threads = order["threads"]
    if order["gpu_layers"] is not None:
        params.n_gpu_layers = order["gpu_layers"]
    if order["embedding"]:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
