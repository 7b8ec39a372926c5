"""Whether uploaded keys are the ones that a model needs. Key by key, so that a gigabyte of them takes little memory."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Any

from lattice.core.errors import LatticeError
from lattice.fhe.artefact.client import ClientView
from lattice.fhe.ckks.seeds import SEED_BYTES
from lattice.fhe.serialise.bits import packed_bytes, unpack
from lattice.fhe.serialise.bundle import read_bundle
from lattice.fhe.serialise.frame import Kind, expect_body, read_frame
from lattice.fhe.serialise.keys import EvaluationKeysHeader, decode_public_key, key_bytes


def check_key_file(path: Path, view: ClientView) -> dict[str, Any]:
    """Facts about a bundle of a public key and evaluation keys; `keys_mismatch` or `blob_invalid`."""
    with open(path, "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    objects = read_bundle(whole, at_most=2)
    if len(objects) != 2:
        raise LatticeError("blob_invalid", "The keys are a bundle of a public key and of evaluation keys.")
    try:
        public = decode_public_key(objects[0], view.params)
        seeds = _check_evaluation_keys(objects[1], view)
    except LatticeError as error:
        if error.code == "parameters_mismatch":
            raise LatticeError("keys_mismatch", error.message) from None
        raise
    if public.seed in seeds or len(seeds) != len(view.keys):
        raise LatticeError("blob_invalid", "Two keys share a seed.")
    return {"public_key_sha256": hashlib.sha256(objects[0]).hexdigest(), "keys": len(view.keys)}


def _check_evaluation_keys(data: memoryview, view: ClientView) -> set[bytes]:
    header, body = read_frame(data, Kind.EVALUATION_KEYS, EvaluationKeysHeader)
    if header.params != view.params.id:
        raise LatticeError("keys_mismatch", f"The keys have parameters other than {view.params.id}.")
    if header.keys != [(spec.element, spec.level) for spec in view.keys]:
        raise LatticeError("keys_mismatch", f"Exactly the {len(view.keys)} keys that the model names are needed.")
    expect_body(body, view.key_bytes)
    seeds, at = set(), 0
    for spec in view.keys:
        plan = view.params.digit_plan(spec.level)
        size = packed_bytes(plan.moduli, view.params.n)
        end = at + key_bytes(spec, view.params)
        seeds.add(bytes(body[at : at + SEED_BYTES]))
        for start in range(at + SEED_BYTES, end, size):
            unpack(body[start : start + size], plan.moduli, view.params.n)  # raises for a residue out of range
        at = end
    return seeds
