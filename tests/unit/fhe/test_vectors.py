"""The committed known answers: today's code still gives them, and a second reading of some agrees."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spec.vectors.fhe.generate import build

from lattice.fhe.ckks.evaluation_keys import EvaluationKey, KeySpec
from lattice.fhe.ckks.parameters import InsecureTestParameters
from lattice.fhe.hal import available_backends, backend
from lattice.fhe.hal.backend import Backend
from tests.support.fhe import slow_ntt

FOLDER = Path(__file__).parents[3] / "spec" / "vectors" / "fhe"


@cache
def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


@cache
def built() -> dict[str, Any]:
    return build()


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_the_code_still_gives_these_answers(name: str) -> None:
    assert built()[name] == load(name), f"{name}.json: a byte layout or a result changed"


def test_every_answer_is_committed() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(built())


def test_the_printed_transforms_are_the_definition() -> None:
    for row in load("transforms"):
        if "input" in row:
            assert slow_ntt(row["input"], row["q"]) == row["output"]


@pytest.fixture(params=available_backends())
def each(request: pytest.FixtureRequest) -> Backend:
    """Every backend of this machine."""
    return backend(request.param)


def test_backends_give_the_printed_key_switch(each: Backend) -> None:
    row = load("key_switching")[0]
    data = row["parameters"]
    p = InsecureTestParameters(data["log_n"], data["base"], data["levels"], data["special"], 1 << 26)
    t = {name: np.array(value, dtype=np.uint64) for name, value in row["tensors"].items() if name != "secret"}
    context = p.key_switch_context(p.max_level)
    key = EvaluationKey(p.id, KeySpec(row["element"], 2), bytes.fromhex(row["seeds"]["rotation"]), t["rotation_key_b"])
    digits = each.decompose(t["ciphertext"][1], context)
    assert np.array_equal(digits, t["digits"])
    assert np.array_equal(each.automorphism_ntt(digits, row["element"]), t["turned_digits"])
    product = each.gadget_product(t["turned_digits"], key.tensor(p), context)
    assert np.array_equal(product, t["gadget_product"])
    assert np.array_equal(each.mod_down(product, context.q_moduli, context.special), t["switched"])
