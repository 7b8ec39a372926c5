"""Programs: canonical bytes, every instruction's rule, the keys that are needed, and runs equal to the evaluator's."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.polynomial import Series
from lattice.fhe.ckks.ciphertext import Encoding, Plaintext
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet, parameters
from lattice.fhe.ckks.presets import preset
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.galois import describe, steps_of
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import MAX_BYTES, Input, Program, Weight, decode, parse_scale, scale_text
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.hal.validation import check, required_keys
from lattice.fhe.hal.weights import Diagonals, encode_diagonals, encode_periodic, repeated
from lattice.fhe.ring.automorphism import conjugation_element, rotation_element
from tests.support.encrypted import Client, noise, same_bits, tiny_client, tiny_parameters

S36 = scale_text(2**36)
COEFFICIENTS = (0.25, 0.5, 0.0, -0.25)


def small_program(params: ParameterSet, *instructions: Instruction, outputs: tuple[int, ...] = (0,)) -> Program:
    """One input at the top level; a plaintext, a matrix of two diagonals, two factors of a sum, six that repeat."""
    top, scale = params.max_level, scale_text(params.scale)
    weights = (
        Weight(top, scale),
        Weight(top, scale, count=2, extended=True),
        Weight(top, scale, count=2),
        Weight(top, scale, count=6, period=2),
    )
    return Program(params, (Input(top, scale),), weights, (ops.LoadInput(0, 0), *instructions), outputs)


def everything(params: ParameterSet) -> Program:
    """Each instruction once."""
    s, q = scale_text(params.scale), params.levels
    step = scale_text(q[-1][0])
    body = [
        ops.LoadWeight(1, 0),
        ops.LoadWeight(2, 1),
        ops.AddPlain(3, 0, 1),
        ops.MultiplyPlain(4, 3, 1),
        ops.Rescale(5, 4),
        ops.Rotate(6, 5, 3),
        ops.Add(7, 5, 6),
        ops.Subtract(8, 7, 5),
        ops.Negate(9, 8),
        ops.Matrix((10,), (3,), 2, (0, 1), (0, 2), ((((0, 1, 0),), ((0, 0, 1),)),)),
        ops.Rescale(11, 10),
        ops.RotateHoisted((12, 13), 11, (1, 4)),
        ops.Multiply(14, 12, 13),
        ops.Relinearise(15, 14),
        ops.Rescale(16, 15),
        ops.Conjugate(17, 16),
        ops.AddConstant(18, 17, 0.5),
        ops.MultiplyConstant(19, 0, -0.5, step),
        ops.Rescale(20, 19),
        ops.Chebyshev(21, 20, COEFFICIENTS, s, 1),
        ops.Drop(22, 0, 1),
        ops.SumSlots(23, 22, ((1, 2, 3), (4,))),
        ops.LoadWeight(24, 2),
        ops.SumPlain((25, 26), (0, 3), 24, (((0, 0), (1, 1)), ((1, 0),))),
        ops.LoadWeight(27, 3),
        ops.SumPeriodic((28, 29, 30), (0, 3), 27),
        ops.Add(31, 26, 30),
    ]
    return small_program(params, *body, outputs=(9, 18, 21, 23, 25, 28, 29, 31))


def secure(levels: int = 6) -> ParameterSet:
    """Real parameters of the same form, for what is encoded."""
    return parameters(log_n=14, base_bits=46, level_bits=[36] * levels, special_bits=[44, 43], scale_bits=36)


def test_equal_programs_have_equal_bytes_and_ids() -> None:
    program = everything(secure())
    again = everything(secure())
    assert program.encode() == again.encode()
    assert program.id == again.id
    assert program.id.startswith("prg_")
    read = decode(program.encode())
    assert read == program
    assert read.id == program.id
    other = small_program(secure(), ops.Negate(1, 0), outputs=(1,))
    assert other.id != program.id


def test_programs_over_test_parameters_stay_in_the_process() -> None:
    with pytest.raises(LatticeError, match="never leave") as caught:
        everything(tiny_parameters()).encode()
    assert caught.value.code == "parameters_insecure"


def test_the_types_of_all_registers() -> None:
    params = tiny_parameters()
    checked = check(everything(params))
    assert [kind.level for kind in checked.outputs] == [5, 4, 3, 1, 6, 6, 6, 6]
    assert checked.outputs[2].scale == params.scale
    assert checked.outputs[3].scale == params.scale
    assert checked.peak_ciphertexts < 18


def test_exactly_the_keys_that_are_used() -> None:
    params = tiny_parameters()
    n = params.n
    wanted = {
        KeySpec.relinearisation(5),
        KeySpec.conjugation(4, params),
        *[KeySpec.rotation(step, level, params) for step, level in ((1, 6), (2, 6), (3, 5), (4, 5))],
    }
    assert set(required_keys(everything(params))) == wanted
    assert KeySpec(rotation_element(1, n), 5) in check(everything(params)).uses, (
        "used lower down too, with the same key"
    )


def test_those_keys_suffice_and_none_can_be_spared() -> None:
    params = tiny_parameters()
    program, specs = everything(params), required_keys(everything(params))
    client = Client.make(params, specs)
    assert len(run(client, program)) == 8
    for missing in specs:
        poorer = Client.make(params, [s for s in specs if s != missing], client.secret)
        with pytest.raises(LatticeError) as caught:
            run(poorer, program)
        assert caught.value.code == "missing_evaluation_key"
        assert describe(missing.element, params.n) in caught.value.message


def weights_of(client: Client, program: Program) -> list[Any]:
    evaluator = client.evaluator()
    scale, top = client.params.scale, client.params.max_level
    prepared = evaluator.prepare_matrix(np.eye(32, k=1) + np.eye(32, k=2), level=top)
    moduli = client.params.digit_plan(top).moduli
    polys = evaluator.encoder.encode_over(noise(64).reshape(2, 32), scale, moduli)
    assert prepared.diagonals.polys.shape == polys.shape
    factors = encode_diagonals(evaluator.encoder, noise(64, 3).reshape(2, 32), level=top, scale=scale, extended=False)
    repeating = encode_periodic(evaluator.encoder, noise(12, 4).reshape(3, 2, 2), level=top, scale=scale)
    one = evaluator.encoder.encode(noise(32, 9), level=top)
    return [one, Diagonals(client.params.id, top, scale, polys), factors, repeating]


def run(client: Client, program: Program) -> list[Any]:
    x = client.encrypt(noise(32))
    return interpreter.run(ReferenceBackend(), program, [x], client.keys, weights_of(client, program))


def test_a_run_has_the_bits_of_the_evaluator() -> None:
    params = tiny_parameters()
    client = tiny_client()
    program = everything(params)
    x, weights = client.encrypt(noise(32)), weights_of(client, program)
    plain, diagonals, factors, repeating = weights
    out = interpreter.run(ReferenceBackend(), program, [x], client.keys, weights)
    e = client.evaluator()
    r5 = e.rescale(e.multiply_plain(e.add_plain(x, plain), plain))
    r9 = e.negate(e.subtract(e.add(r5, e.rotate(r5, 3)), r5))
    r18 = e.add_plain(e.conjugate(e.rescale(e.multiply(*hoisted(e, x, plain, diagonals)))), 0.5)
    r20 = e.rescale(e.multiply_plain(x, -0.5))
    r21 = e.polynomial(r20, Series(COEFFICIENTS), split=1)
    for got, wanted in zip(out[:3], (r9, r18, r21), strict=True):
        assert same_bits(got, wanted)
    assert client.error(out[3], client.values(e.sum_slots(e.drop(x, 1), 8))) < 2**-24
    r3 = e.add_plain(x, plain)
    one, two = (Plaintext(params.id, 6, params.scale, poly) for poly in factors.polys)
    assert same_bits(out[4], e.add(e.multiply_plain(x, one), e.multiply_plain(r3, two)))
    for got, row in zip(out[5:7], repeated(repeating.residues, params.n), strict=False):
        w, v = (Plaintext(params.id, 6, params.scale, poly) for poly in row)
        assert same_bits(got, e.add(e.multiply_plain(x, w), e.multiply_plain(r3, v)))
    assert all(same_bits(a, b) for a, b in zip(out, e.run(program, [x], weights), strict=True))


def hoisted(e: Any, x: Any, plain: Any, diagonals: Any) -> list[Any]:
    from lattice.fhe.hal.composites import ProductPlan

    plan = ProductPlan((0, 1), (0, 2), ((((0, 1, 0),), ((0, 0, 1),)),))
    (product,) = e._on.matrix([e.add_plain(x, plain)], diagonals, plan)
    return list(e.rotate_many(e.rescale(product), [1, 4]))


def test_registers_are_freed_after_their_last_use() -> None:
    program = everything(tiny_parameters())
    freed = check(program).freed()
    assert 4 in freed[5]
    assert not {9, 18, 21, 23} & {r for at, rs in freed.items() if at < len(program.instructions) for r in rs}


REFUSED = {
    "undefined register": (ops.Negate(1, 5),),
    "reads itself": (ops.Negate(1, 1),),
    "negative register": (ops.Negate(1, -1),),
    "defined twice": (ops.Negate(0, 0),),
    "number left out": (ops.Negate(2, 0),),
    "no such input": (ops.LoadInput(1, 1),),
    "negative input": (ops.LoadInput(1, -1),),
    "no such weight": (ops.LoadWeight(1, 4),),
    "plaintext where a ciphertext belongs": (ops.LoadWeight(1, 0), ops.Negate(2, 1)),
    "ciphertext where a plaintext belongs": (ops.AddPlain(1, 0, 0),),
    "matrix as a plaintext": (ops.LoadWeight(1, 1), ops.MultiplyPlain(2, 0, 1)),
    **{
        what: (ops.LoadWeight(1, 1), ops.Matrix((2,), (0,), 1, *plan))
        for what, plan in {
            "diagonal out of range": ((0,), (0,), ((((0, 0, 2),),),)),
            "baby out of range": ((0,), (0,), ((((0, 1, 0),),),)),
            "input out of range": ((0,), (0,), ((((1, 0, 0),),),)),
            "negative diagonal": ((0,), (0,), ((((0, 0, -1),),),)),
            "giant without terms": ((0,), (0, 1), ((((0, 0, 0),), ()),)),
            "giant twice": ((0,), (1, 1), ((((0, 0, 0),), ((0, 0, 1),)),)),
            "baby twice": ((1, 1), (0,), ((((0, 0, 0), (0, 1, 1)),),)),
            "giant out of range": ((0,), (32,), ((((0, 0, 0),),),)),
            "no giants": ((0,), (), ((),)),
            "a result too many": ((0,), (0,), ((((0, 0, 0),),), (((0, 0, 1),),))),
            "a giant too few": ((0,), (0, 1), ((((0, 0, 0),),),)),
        }.items()
    },
    "plaintext as a matrix": (ops.LoadWeight(1, 0), ops.Matrix((2,), (0,), 1, (0,), (0,), ((((0, 0, 0),),),))),
    "sum as a matrix": (ops.LoadWeight(1, 2), ops.Matrix((2,), (0,), 1, (0,), (0,), ((((0, 0, 0),),),))),
    "matrix of nothing": (ops.LoadWeight(1, 1), ops.Matrix((2,), (), 1, (0,), (0,), ((((0, 0, 0),),),))),
    "matrix for nobody": (ops.LoadWeight(1, 1), ops.Matrix((), (0,), 1, (), (), ())),
    "result without terms": (ops.LoadWeight(1, 1), ops.Matrix((2, 3), (0,), 1, (0,), (0,), ((((0, 0, 0),),), ((),)))),
    "inputs of two levels": (
        ops.LoadWeight(1, 1),
        ops.Drop(2, 0, 3),
        ops.Matrix((3,), (0, 2), 1, (0,), (0,), ((((0, 0, 0),),),)),
    ),
    "matrix as a sum": (ops.LoadWeight(1, 1), ops.SumPlain((2,), (0,), 1, (((0, 0),),))),
    "plaintext as a sum": (ops.LoadWeight(1, 0), ops.SumPlain((2,), (0,), 1, (((0, 0),),))),
    "sum with a plaintext out of range": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (0,), 1, (((0, 2),),))),
    "sum with an input out of range": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (0,), 1, (((1, 0),),))),
    "sum with a negative index": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (0,), 1, (((0, -1),),))),
    "sum without terms": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (0,), 1, ((),))),
    "sum of no results": (ops.LoadWeight(1, 2), ops.SumPlain((), (0,), 1, ())),
    "sum of nothing in": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (), 1, (((0, 0),),))),
    "sum with a result too many": (ops.LoadWeight(1, 2), ops.SumPlain((2,), (0,), 1, (((0, 0),), ((0, 0),)))),
    "sum of other components": (
        ops.LoadWeight(1, 2),
        ops.Multiply(2, 0, 0),
        ops.SumPlain((3,), (0, 2), 1, (((0, 0),),)),
    ),
    "sum list as one plaintext": (ops.LoadWeight(1, 2), ops.AddPlain(2, 0, 1)),
    "repeating as a sum": (ops.LoadWeight(1, 3), ops.SumPlain((2,), (0,), 1, (((0, 0),),))),
    "repeating as one plaintext": (ops.LoadWeight(1, 3), ops.MultiplyPlain(2, 0, 1)),
    "repeating as a matrix": (ops.LoadWeight(1, 3), ops.Matrix((2,), (0,), 1, (0,), (0,), ((((0, 0, 0),),),))),
    "sum as repeating": (ops.LoadWeight(1, 2), ops.SumPeriodic((2,), (0, 0), 1)),
    "repeating for other sizes": (ops.LoadWeight(1, 3), ops.SumPeriodic((2,), (0, 0), 1)),
    "repeating for nobody": (ops.LoadWeight(1, 3), ops.SumPeriodic((), (), 1)),
    "different levels": (ops.Drop(1, 0, 2), ops.Add(2, 0, 1)),
    "different scales": (ops.MultiplyConstant(1, 0, 1.0, S36), ops.Add(2, 0, 1)),
    "three components rotated": (ops.Multiply(1, 0, 0), ops.Rotate(2, 1, 1)),
    "relinearised twice": (ops.Multiply(1, 0, 0), ops.Relinearise(2, 1), ops.Relinearise(3, 2)),
    "rotation by nothing": (ops.Rotate(1, 0, 0),),
    "rotation by all": (ops.Rotate(1, 0, 32),),
    "negative rotation": (ops.Rotate(1, 0, -1),),
    "hoisting nothing": (ops.RotateHoisted((), 0, ()),),
    "hoisting with a name too many": (ops.RotateHoisted((1, 2), 0, (1,)),),
    "drop upwards": (ops.Drop(1, 0, 7),),
    "drop below": (ops.Drop(1, 0, -1),),
    "rescaled to nothing": (ops.Rescale(1, 0), ops.Rescale(2, 1)),
    "scale of zero": (ops.MultiplyConstant(1, 0, 1.0, "0/1"),),
    "scale not in lowest terms": (ops.MultiplyConstant(1, 0, 1.0, "2/2"),),
    "negative scale": (ops.MultiplyConstant(1, 0, 1.0, "-1/1"),),
    "huge scale": (ops.MultiplyConstant(1, 0, 1.0, "f" * 20_000 + "/1"),),
    "scale past the modulus": (ops.MultiplyConstant(1, 0, 1.0, scale_text(2**250)),),
    "constant that is no number": (ops.AddConstant(1, 0, float("nan")),),
    "infinite constant": (ops.MultiplyConstant(1, 0, float("inf"), S36),),
    "constant series": (ops.Chebyshev(1, 0, (1.0,), S36, 1),),
    "series with a hole": (ops.Chebyshev(1, 0, (1.0, float("nan")), S36, 1),),
    "series too deep": (ops.Chebyshev(1, 0, (1.0,) * 200, S36, 1),),
    "split of nothing": (ops.Chebyshev(1, 0, COEFFICIENTS, S36, 0),),
    "split of a million": (ops.Chebyshev(1, 0, COEFFICIENTS, S36, 10**6),),
    "sum of nothing": (ops.SumSlots(1, 0, ()),),
    "sum with an empty stage": (ops.SumSlots(1, 0, ((),)),),
    "sum by nothing": (ops.SumSlots(1, 0, ((0,),)),),
}


@pytest.mark.parametrize("instructions", REFUSED.values(), ids=REFUSED)
def test_a_fault_is_named_with_its_instruction(instructions: tuple[Instruction, ...]) -> None:
    with pytest.raises(LatticeError) as caught:
        check(small_program(tiny_parameters(), *instructions))
    assert caught.value.code == "program_invalid"
    assert caught.value.details["instruction"] == len(instructions)
    name = type(instructions[-1]).__struct_config__.tag
    assert caught.value.message.startswith(f"Instruction {len(instructions)} ({name}): ")


BAD_WEIGHTS = (
    Weight(6, S36, count=-1),
    Weight(6, S36, count=1 << 23),
    Weight(6, S36, extended=True),
    Weight(6, S36, period=2),
    Weight(6, S36, count=2, period=3),
    Weight(6, S36, count=2, period=64),
    Weight(6, S36, count=2, period=-2),
    Weight(6, S36, count=2, period=2, extended=True),
    Weight(6, S36, count=2, period=2, encoding=Encoding.COEFFICIENTS),
)


def test_outputs_and_interfaces_are_checked() -> None:
    params = tiny_parameters()
    base = small_program(params, ops.LoadWeight(1, 0))
    for outputs in ((), (1,), (7,), (-1,)):
        with pytest.raises(LatticeError, match=r"[Oo]utput"):
            check(Program(params, base.inputs, base.weights, base.instructions, outputs))
    for weight in BAD_WEIGHTS:
        with pytest.raises(LatticeError) as caught:
            check(Program(params, base.inputs, (weight,), base.instructions[:1], (0,)))
        assert caught.value.code == "program_invalid"
    for bad in (Input(7, S36), Input(-1, S36), Input(0, scale_text(2**60)), Input(0, "x"), Input(0, "1/0")):
        with pytest.raises(LatticeError):
            check(Program(params, (bad,), (), (ops.LoadInput(0, 0),), (0,)))


def test_parameters_without_special_primes_have_no_rotations() -> None:
    params = preset("linear-2048")
    scale = scale_text(params.scale)
    program = Program(params, (Input(0, scale),), (), (ops.LoadInput(0, 0), ops.Rotate(1, 0, 1)), (1,))
    with pytest.raises(LatticeError, match="no special primes"):
        check(program)


def test_what_comes_in_must_be_what_was_declared() -> None:
    params = tiny_parameters()
    client = tiny_client()
    program = small_program(params, ops.LoadWeight(1, 0), ops.MultiplyPlain(2, 0, 1), outputs=(2,))
    x, weights = client.encrypt(noise(32)), weights_of(client, program)
    cases = {
        "circuit_invalid": ([], weights),
        "level_mismatch": ([client.encrypt(noise(32), level=3)], weights),
        "scale_mismatch": ([client.encrypt(noise(32), scale=2**30)], weights),
        "parameters_mismatch": ([tiny_client(tiny_parameters(scale_bits=35)).encrypt(noise(32))], weights),
    }
    for code, (inputs, given_weights) in cases.items():
        with pytest.raises(LatticeError) as caught:
            interpreter.run(ReferenceBackend(), program, inputs, client.keys, given_weights)
        assert caught.value.code == code
    triple = client.evaluator().multiply(
        client.encrypt(0.5, scale=2**18), client.encrypt(0.5, scale=2**18), relinearise=False
    )
    for inputs, given_weights in (([x], weights[:1]), ([x], weights[::-1]), ([triple], weights)):
        with pytest.raises(LatticeError):
            interpreter.run(ReferenceBackend(), program, inputs, client.keys, given_weights)
    coefficients = client.encrypt(noise(64), encoding=Encoding.COEFFICIENTS)
    with pytest.raises(LatticeError, match="coefficients"):
        interpreter.run(ReferenceBackend(), program, [coefficients], client.keys, weights)


def test_a_backend_that_runs_programs_gets_them_whole() -> None:
    class Whole(ReferenceBackend):
        def run(self, program: Program, inputs: Any, keys: Any, weights: Any, cancel: Any) -> Any:
            return [program.id, len(inputs), keys is client.keys, len(weights), cancel]

    client = tiny_client()
    program = small_program(client.params, outputs=(0,))
    out: Any = interpreter.run(Whole(), program, [client.encrypt(noise(32))], client.keys, weights_of(client, program))
    assert out == [program.id, 1, True, 4, None]


def test_hostile_bytes_are_refused() -> None:
    good = everything(secure()).encode()
    wire = msgspec.msgpack.decode(good)

    def damaged(**changes: Any) -> bytes:
        return msgspec.msgpack.encode(wire | changes)

    bad = [
        b"",
        good[:-1],
        good + b"\0",
        b"\x93" * 100_000,
        bytes(MAX_BYTES + 1),
        damaged(version=2),
        damaged(format="other"),
        damaged(extra=1),
        damaged(instructions=[{"op": "exec", "out": 0}]),
        damaged(instructions=[{"op": "neg", "out": 1, "a": 0, "b": 2}]),
        damaged(outputs=[]),
        damaged(parameters={}),
        damaged(parameters=wire["parameters"] | {"special": []}),
        msgspec.msgpack.encode(dict(reversed(wire.items()))),
    ]
    for data in bad:
        with pytest.raises(LatticeError) as caught:
            decode(data)
        assert caught.value.code in {"program_invalid", "invalid_parameters"}
    insecure = wire["parameters"] | {"log_n": 11, "special": wire["parameters"]["special"]}
    with pytest.raises(LatticeError) as caught:
        decode(damaged(parameters=insecure))
    assert caught.value.code in {"parameters_insecure", "invalid_parameters"}


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 255))
def test_any_bytes_give_a_typed_error_or_a_program(data: bytes, at: int, byte: int) -> None:
    good = bytearray(_GOOD)
    good[at % len(good)] = byte
    for candidate in (data, bytes(good)):
        with suppress(LatticeError):
            assert decode(candidate).encode() == candidate


_GOOD = everything(secure()).encode()


def test_scales_are_written_in_one_way() -> None:
    for scale in (Fraction(1), Fraction(2**36), Fraction(3**50, 7**20)):
        assert parse_scale(scale_text(scale)) == scale
    for bad in ("", "1", "1/0", "/1", "1/", "01/1", "1/1 ", "A/1", "0x1/1", "+1/1", "1_0/1", "1/-1", "2/4"):
        with pytest.raises(LatticeError):
            parse_scale(bad)


def test_elements_in_words() -> None:
    for n in (4, 64, 2048):
        for steps in range(min(n // 2, 100)):
            assert steps_of(rotation_element(steps, n), n) == steps
        assert describe(conjugation_element(n), n) == "conjugation"
        assert describe(0, n) == "relinearisation"
    assert steps_of(3, 64) is None
    assert describe(3, 64) == "automorphism X^3"
