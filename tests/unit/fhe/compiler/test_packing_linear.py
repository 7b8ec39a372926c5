"""The builder refuses a scheme that would lose, repeat or misplace a product, and says truly what each slot holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.matrix import Limbs
from lattice.fhe.compiler import simulate
from lattice.fhe.compiler.circuit import JUNK, ZERO, Circuit, Slots
from lattice.fhe.compiler.operations import Sparse
from lattice.fhe.compiler.packing import candidates, linear
from lattice.fhe.compiler.packing.bsgs import splits, steps
from lattice.fhe.compiler.packing.candidates import middle
from lattice.fhe.compiler.packing.layer import Layer
from lattice.fhe.compiler.packing.layout import Layout, in_order
from lattice.fhe.compiler.packing.linear import Built, Entries, Scheme, build

SLOTS = 64


def matrix(out: int, inputs: int, seed: int = 0, density: float = 1.0) -> Sparse:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(out, inputs)) * (random.random((out, inputs)) < density)
    return Sparse.of(weight, random.normal(size=out))


def run(sparse: Sparse, built: Built, x: np.ndarray, seed: int = 0) -> tuple[np.ndarray, Slots]:
    """The result's slots with garbage wherever the input's layout has no entry, by each of the best splits."""
    random = np.random.default_rng(seed)
    inputs = [np.where(a >= 0, x[np.maximum(a, 0)], random.normal(0, 1e3, len(a))) for a in built.scheme.source.slots]
    found = []
    for split in splits(built, Limbs(), 1.0):
        added, outs = steps(built, split, len(inputs), tuple(range(len(inputs))), sparse.bias, "layer")
        layout = built.scheme.source.slots
        values = simulate.evaluate(Circuit(SLOTS, 1, layout, tuple(added), outs, built.layout.slots), inputs)
        found.append(np.concatenate([values[out] for out in outs]))
    for other in found[1:]:
        assert np.allclose(found[0], other, atol=1e-6), "splits of one layer disagree"
    return found[0], np.concatenate(built.layout.slots)


def holds_what_it_says(sparse: Sparse, built: Built) -> None:
    x = np.random.default_rng(5).normal(size=sparse.inputs)
    expected = sparse.apply(x[None])[0]
    got, says = run(sparse, built, x)
    read = says >= 0
    assert np.allclose(got[read], expected[says[read]], atol=1e-9)
    assert not got[says == ZERO].any(), "a slot that is declared zero holds something"


def scheme_of(sparse: Sparse, name: str = "fields") -> Scheme:
    layer = Layer("layer", Entries(sparse), SLOTS)
    return next(scheme for scheme in middle(layer, in_order(sparse.inputs, SLOTS)) if scheme.name.startswith(name))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1.0, 0.3, 0.02]), st.integers(0, 5))
def test_every_scheme_for_any_layout_holds_what_it_says(out: int, inputs: int, density: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    sparse = matrix(out, inputs, seed, density)
    entries = Entries(sparse)
    places = random.permutation(SLOTS)
    scattered = np.where(random.random(SLOTS) < 0.5, JUNK, ZERO).astype(np.int32)
    scattered[places[:inputs]] = np.arange(inputs)
    gapped = np.full(SLOTS, JUNK, dtype=np.int32)
    gap = SLOTS // 64 * (64 // max(1, 1 << (inputs - 1).bit_length()))
    gapped[3 % gap :: gap][:inputs] = np.arange(inputs)
    layer = Layer("layer", entries, SLOTS)
    tried = 0
    for layout in (in_order(inputs, SLOTS), Layout((scattered,)), Layout((gapped,))):
        for scheme in [*middle(layer, layout), candidates.toward(layer, layout, in_order(out, SLOTS))]:
            try:
                built = build(entries, scheme)
            except LatticeError as error:
                if error.code != "packing_failed":
                    raise
                continue
            holds_what_it_says(sparse, built)
            tried += 1
    assert tried >= 6


def test_an_offset_that_is_missing_is_caught() -> None:
    sparse = matrix(8, 32)
    scheme = scheme_of(sparse)
    build(Entries(sparse), scheme)
    for at in range(len(scheme.offsets)):
        fewer = scheme._replace(offsets=scheme.offsets[:at] + scheme.offsets[at + 1 :])
        with pytest.raises(LatticeError, match="gives 0 of 8 outputs") as caught:
            build(Entries(sparse), fewer)
        assert caught.value.code == "packing_failed"


def test_an_entry_is_never_counted_twice() -> None:
    sparse = matrix(8, 32)
    scheme = scheme_of(sparse)
    more = scheme._replace(offsets=tuple((0, turn) for turn in range(SLOTS)))
    holds_what_it_says(sparse, build(Entries(sparse), more))
    # Groups that are smaller than what is really folded would repeat entries; nothing comes out whole then.
    apart = scheme._replace(groups=np.arange(SLOTS), offsets=more.offsets)
    with pytest.raises(LatticeError, match="gives 0 of 8"):
        build(Entries(sparse), apart)


def test_a_fold_too_short_or_too_long_is_caught() -> None:
    sparse = matrix(8, 32)
    scheme = scheme_of(sparse)
    assert scheme.fold
    for fold in (scheme.fold[:-1], (*scheme.fold, (SLOTS // 2,))):
        with pytest.raises(LatticeError, match="gives 0 of 8"):
            build(Entries(sparse), scheme._replace(fold=fold))


def test_a_wrong_map_of_outputs_is_caught() -> None:
    sparse = matrix(8, 32)
    scheme = scheme_of(sparse)
    outputs = scheme.outputs[0].copy()
    outputs[outputs == 3] = 4
    with pytest.raises(LatticeError, match=r"gives [0-7] of 8"):
        build(Entries(sparse), scheme._replace(outputs=(outputs,)))


def test_large_layers_are_built_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = matrix(20, 30)
    whole = build(Entries(sparse), scheme_of(sparse))
    monkeypatch.setattr(linear, "TABLE", 100)
    parts = build(Entries(sparse), scheme_of(sparse))
    assert all(np.array_equal(a, b) for a, b in zip(whole.diagonals, parts.diagonals, strict=True))
    assert parts.layout.key == whole.layout.key
