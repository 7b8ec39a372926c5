"""A model that needs 300 MB of evaluation keys: a sum of rotations at N = 2^15, one key of 21 MB for each of them."""

from __future__ import annotations

import numpy as np

from lattice.fhe.ckks.presets import preset
from lattice.fhe.compiler.client_part import ClientPart, Normalise, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import Report
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Input, Program, scale_text

KEYS = 15
FEATURES = 16


def compiled() -> Compiled:
    """Every feature plus those behind it: y[s] = Σ x[s + k] for k = 0 … 15."""
    params = preset("deep-32768")
    scale, top = scale_text(params.scale), params.max_level
    steps: list[Instruction] = [ops.LoadInput(0, 0)]
    total = 0
    for turn in range(1, KEYS + 1):
        rotated, added = 2 * turn - 1, 2 * turn
        steps += [ops.Rotate(rotated, 0, turn), ops.Add(added, total, rotated)]
        total = added
    program = Program(params, (Input(top, scale),), (), tuple(steps), (total,))
    slots = np.arange(params.slots)
    places = np.where(slots < FEATURES, slots, -1).astype(np.int32)
    results = np.where(slots == 0, 0, -2).astype(np.int32)
    client = ClientPart(
        (FEATURES,),
        1,
        (Normalise(),),
        (Packed(places, top, scale),),
        (Packed(results, top, scale),),
        (),
        1,
        np.full(FEATURES, -1.0),
        np.full(FEATURES, 1.0),
    )
    return Compiled(program, (), client, Report(model="many keys").to_dict())
