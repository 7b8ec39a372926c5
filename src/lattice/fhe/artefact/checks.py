"""Whether a client's part fits itself and its parameters: what is read is checked here before anybody uses it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import isfinite, prod
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.artefact.container import check_text, invalid
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.client_part import (
    After,
    AppendSquaredLength,
    ArgMax,
    ClientPart,
    Largest,
    Neighbours,
    Packed,
    Threshold,
    ToUnit,
    Vote,
)
from lattice.fhe.hal.program import parse_scale
from lattice.fhe.serialise.keys import MAX_KEYS

MAX_ENTRIES = 1 << 25
"""Of all layouts of a part together: 128 MiB."""
MAX_SAMPLE = 1 << 23
"""Features of a sample: their ranges take 128 MiB."""
MAX_BATCH = MAX_RESULTS = 1 << 20
MAX_AXES = MAX_STEPS = 8
MAX_LABEL = 200
MAX_EXPONENT = 1100
LOWEST_ENTRY = -2
"""`circuit.JUNK`; −1 is `ZERO`."""


def check_keys(keys: tuple[KeySpec, ...], params: ParameterSet) -> None:
    if len(keys) > MAX_KEYS or any(a.element >= b.element for a, b in pairwise(keys)):
        raise invalid(f"Keys must be in ascending order, each once, {MAX_KEYS} at most.")
    try:
        for spec in keys:
            spec.check(params)
    except LatticeError as error:
        raise invalid(f"A key cannot be made: {error.message}") from None


def check_client(part: ClientPart, params: ParameterSet) -> None:
    """Sizes, ranges and indices fit each other and the parameters."""
    _check_inputs(part, params)
    if not part.outputs or not 1 <= part.results <= MAX_RESULTS or part.batch * part.results > MAX_ENTRIES:
        raise invalid("The model has no output, or too many results.")
    read = np.zeros(part.batch * part.results, dtype=bool)
    for packed in part.outputs:
        _check_packed(packed, params)
        found = packed.entries[packed.entries >= 0]
        if len(found) and found.max() >= len(read):
            raise invalid("An output slot holds a result that no sample has.")
        read[found] = True
    if not read.all():
        raise invalid("A result lies in no output slot.")
    _check_after(part)


def check_database(part: ClientPart, params: ParameterSet) -> None:
    """The same for whoever only encrypts."""
    _check_inputs(part, params)
    if part.outputs or part.after or part.results:
        raise invalid("The owner of a database reads no results.")


def _check_inputs(part: ClientPart, params: ParameterSet) -> None:
    features = _check_samples(part)
    if not part.inputs:
        raise invalid("The model has no input.")
    for packed in part.inputs:
        _check_packed(packed, params)
        if packed.entries.max() >= part.batch * features:
            raise invalid("An input slot asks for a feature that no sample has.")


def _check_samples(part: ClientPart) -> int:
    """Features of one sample as they are packed."""
    if len(part.feature_shape) > MAX_AXES or any(not 1 <= extent <= MAX_SAMPLE for extent in part.feature_shape):
        raise invalid(f"A sample has at most {MAX_AXES} axes, none of them empty.")
    size = prod(part.feature_shape)
    if size > MAX_SAMPLE or not 1 <= part.batch <= MAX_BATCH:
        raise invalid("A sample or the batch is too large, or zero.")
    if len(part.before) > MAX_STEPS or len(part.after) > MAX_STEPS:
        raise invalid(f"The client takes at most {MAX_STEPS} steps before and after.")
    features = _packed_features(part, size)
    if part.batch * features > 1 << 31:
        raise invalid("A batch has too many features.")
    if part.low.shape != part.high.shape or part.low.shape not in ((size,), (features,)):
        raise invalid(f"There are {part.low.size} and {part.high.size} ranges for {features} features.")
    if not (part.low <= part.high).all():  # not for NaN either
        raise invalid("A calibrated range is empty or not a number.")
    return features


def _packed_features(part: ClientPart, features: int) -> int:
    """How many features a sample has after the steps before packing."""
    for step in part.before:
        if isinstance(step, AppendSquaredLength):
            features += 1
        if isinstance(step, ToUnit):
            if len(step.middle) != features or len(step.exponents) != features:
                raise invalid(f"A step before packing has {len(step.middle)} features and a sample {features}.")
            if not np.isfinite(step.middle).all() or any(abs(bits) > MAX_EXPONENT for bits in step.exponents):
                raise invalid("A step before packing is not of finite numbers.")
    return features


def _check_packed(packed: Packed, params: ParameterSet) -> None:
    whole = params.slots if packed.encoding is Encoding.SLOTS else params.n
    size = len(packed.entries)
    if size > whole or whole % size:
        raise invalid(f"A layout has {size} entries; a ciphertext has room for {whole}.")
    if not 0 <= packed.level <= params.max_level:
        raise invalid(f"An input or output is at level {packed.level}, which does not exist.")
    try:
        parse_scale(packed.scale)
    except LatticeError as error:
        raise invalid(error.message) from None
    if packed.entries.min() < LOWEST_ENTRY:
        raise invalid(f"An entry of a layout is below {LOWEST_ENTRY}.")


def _check_after(part: ClientPart) -> None:
    for step in part.after:
        labels = getattr(step, "labels", ())
        for label in labels:
            check_text(label, MAX_LABEL)
        fits = _CHOICES.get(type(step))
        if fits and (step is not part.after[-1] or not fits(step, part.results)):
            raise invalid(f"The last step {step.__struct_config__.tag} does not fit {part.results} results.")


_CHOICES: dict[type[After], Callable[[Any, int], bool]] = {
    ArgMax: lambda step, results: len(step.labels) in (0, results),
    Threshold: lambda step, results: len(step.labels) in (0, 2) and isfinite(step.value),
    Largest: lambda step, results: 1 <= step.count <= results,
    Vote: lambda step, results: len(step.labels) > 1 and len(step.labels) * (len(step.labels) - 1) == 2 * results,
    Neighbours: lambda step, results: (
        1 <= step.count <= results == len(step.members)
        and all(0 <= member < len(step.labels) for member in step.members)
    ),
}
"""Whether a step and its tables fit so many results. They end in labels or in fewer values, so they come last only."""
