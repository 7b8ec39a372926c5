"""A compiled model small enough to write down: y[s] = w[s]·(x[s] + x[s + 1]) + b[s], two samples of four features."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from lattice.fhe.compiler.client_part import ArgMax, ClientPart, Normalise, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import LayerReport, Report
from lattice.fhe.compiler.report_facts import completed
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Input, Program, Weight, scale_text
from tests.support.fhe import small

BATCH, FEATURES, RESULTS = 2, 4, 3


def program() -> Program:
    """One rotation key, one level, a weight and a bias."""
    params = small()
    scale = scale_text(params.scale)
    (q,) = params.levels[0]
    steps = (
        ops.LoadInput(0, 0),
        ops.Rotate(1, 0, 1),
        ops.Add(2, 0, 1),
        ops.LoadWeight(3, 0),
        ops.MultiplyPlain(4, 2, 3),
        ops.Rescale(5, 4),
        ops.LoadWeight(6, 1),
        ops.AddPlain(7, 5, 6),
    )
    weights = (Weight(1, scale_text(q)), Weight(0, scale))
    return Program(params, (Input(1, scale),), weights, steps, (7,))


def client() -> ClientPart:
    """Features one after the other; three results of each sample, then one slot of junk."""
    scale = scale_text(small().scale)
    slots = np.arange(small().slots)
    used = slots < BATCH * FEATURES
    sample, place = np.divmod(slots, FEATURES)
    inputs = np.where(used, slots, -1).astype(np.int32)
    outputs = np.where(used & (place < RESULTS), sample * RESULTS + place, -2).astype(np.int32)
    return ClientPart(
        (FEATURES,),
        BATCH,
        (Normalise(),),
        (Packed(inputs, 1, scale),),
        (Packed(outputs, 0, scale),),
        (ArgMax(("zero", "one", "two")),),
        RESULTS,
        np.full(FEATURES, -1.0),
        np.full(FEATURES, 1.0),
    )


@cache
def compiled(seed: int = 0) -> Compiled:
    """With a seed's weights: the first fits 32 bits, the second does not."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(-1, 1, (1, small().slots)).astype(np.float32)
    second = rng.uniform(-1, 1, (1, small().slots))
    layer = LayerReport("sum", "dense 4 → 3", level_in=1, rotations=1)
    model = Compiled(program(), (first, second), client(), Report(model="tiny", layers=(layer,)).to_dict())
    return replace(model, report=completed(model, first.nbytes + second.nbytes).to_dict())
