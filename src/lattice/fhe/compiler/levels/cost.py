"""How long a program takes: each instruction in transforms and multiply-adds of limbs, times what those take here.

The counts follow `hal.composites`. The machine's two constants come from a probe of about 100 ms per ring (`probe`);
fused kernels are faster than their parts, so a whole key switch is timed as well and its ratio to the sum of its parts
corrects the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import cycle
from time import perf_counter
from typing import Any, NamedTuple, cast

import numpy as np

from lattice.fhe.ckks.digits import KeySwitchContext
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import polynomial
from lattice.fhe.hal.backend import Backend, Residues
from lattice.fhe.hal.composites import Composites
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Program, parse_scale
from lattice.fhe.hal.rules import CiphertextType


class Work(NamedTuple):
    """Of limbs: transforms, and passes of a multiplication or addition."""

    transforms: float = 0.0
    passes: float = 0.0

    def __add__(self, other: object) -> Work:
        assert isinstance(other, Work), "work is added to work"
        return Work(self.transforms + other.transforms, self.passes + other.passes)

    def times(self, count: float) -> Work:
        """So often."""
        return Work(self.transforms * count, self.passes * count)


class Machine(NamedTuple):
    """Seconds on one machine, for one ring."""

    transform: float
    one_pass: float
    instruction: float = 1.5e-5

    def seconds(self, work: Work) -> float:
        """Of one instruction."""
        return self.instruction + work.transforms * self.transform + work.passes * self.one_pass


PROBE_BYTES, MAX_PROBE_KEYS = 48 << 20, 32
"""Enough keys that none is in a cache when its turn comes."""
NOMINAL = {12: Machine(6e-6, 1.2e-6), 13: Machine(1.3e-5, 2.5e-6), 14: Machine(2.8e-5, 5e-6)}
"""Where nobody probes (tests): orders of magnitude."""


CACHED = 128
"""Plaintexts of one product, up to which caches help."""


class Switch(NamedTuple):
    """Key switching at one level."""

    limbs: int
    special: int
    digits: int

    @classmethod
    def at(cls, params: ParameterSet, level: int) -> Switch:
        """As the level's context says."""
        context: KeySwitchContext = params.key_switch_context(level, level)
        return cls(len(context.q_moduli), len(context.special), len(context.digits))

    @property
    def wide(self) -> int:
        """Limbs of QP."""
        return self.limbs + self.special

    @property
    def mod_up(self) -> Work:
        """Decompose and extend."""
        return Work(self.limbs + self.digits * self.wide - self.limbs, self.limbs * self.wide)

    @property
    def gadget(self) -> Work:
        """Digits times a key."""
        return Work(0.0, 2.0 * self.digits * self.wide)

    @property
    def mod_down(self) -> Work:
        """Of one polynomial."""
        return Work(self.wide, self.limbs * (self.special + 1.0))

    @property
    def whole(self) -> Work:
        """One rotation or relinearisation."""
        return self.mod_up + self.gadget + self.mod_down.times(2)


@dataclass
class Estimate:
    """Of a whole program."""

    seconds: float = 0.0
    by_layer: dict[str, float] = field(default_factory=dict)
    switches: int = 0
    """Gadget products: what rotations and relinearisations cost mostly."""


def estimate(program: Program, layers: tuple[str, ...], machine: Machine) -> Estimate:
    """Time by layer; the layer names are of the instructions."""
    counting = _Counting(program)
    out = Estimate()
    for instruction, layer in zip(program.instructions, layers, strict=True):
        if isinstance(instruction, ops.LoadInput | ops.LoadWeight):
            continue
        seconds = machine.seconds(_WORK[type(instruction)](counting, instruction))
        out.seconds += seconds
        out.by_layer[layer] = out.by_layer.get(layer, 0.0) + seconds
        out.switches += _switches(instruction)
    return out


class _Counting:
    def __init__(self, program: Program) -> None:
        self.program, self.params = program, program.params
        self.types = program.checked.types

    def kind(self, register: int) -> CiphertextType:
        return cast(CiphertextType, self.types[register])

    def limbs(self, register: int) -> int:
        return len(self.params.q_moduli(self.kind(register).level))

    def switch(self, register: int) -> Switch:
        return Switch.at(self.params, self.kind(register).level)

    def passes(self, instruction: Any, count: float) -> Work:
        """So many passes over every limb of operand a."""
        return Work(0.0, count * self.limbs(instruction.a))

    def rescale(self, instruction: ops.Rescale) -> Work:
        kept = self.limbs(instruction.out)
        dropped = self.limbs(instruction.a) - kept
        return Work(kept + dropped, kept * (dropped + 1.0)).times(2)

    def matrix(self, instruction: ops.Matrix) -> Work:
        switch = self.switch(instruction.inputs[0])
        used = {(i, b) for out in instruction.terms for terms in out for i, b, _ in terms}
        moving = {(i, b) for i, b in used if instruction.babies[b]}
        work = switch.mod_up.times(len({i for i, _ in moving}))
        work += (switch.gadget + Work(0.0, switch.limbs)).times(len(moving))
        reading = _reading(sum(len(terms) for out in instruction.terms for terms in out))
        for out in instruction.terms:
            work += Work(0.0, reading * switch.wide * sum(map(len, out))) + switch.mod_down.times(2)
            giants = sum(1 for giant, terms in zip(instruction.giants, out, strict=True) if giant and terms)
            work += (switch.mod_up + switch.gadget + switch.mod_down).times(giants)
        return work

    def sum_slots(self, instruction: ops.SumSlots) -> Work:
        switch = self.switch(instruction.a)
        work = Work()
        for stage in instruction.stages:
            work += switch.mod_up + switch.gadget.times(len(stage)) + switch.mod_down.times(2)
        return work

    def hoisted(self, instruction: ops.RotateHoisted) -> Work:
        switch = self.switch(instruction.a)
        return switch.mod_up + (switch.gadget + switch.mod_down.times(2)).times(len(instruction.steps))

    def periodic(self, instruction: ops.SumPeriodic) -> Work:
        # A product of matrices of numbers, blocked: several times cheaper than a pass each.
        limbs = self.limbs(instruction.inputs[0])
        return Work(0.0, 0.5 * limbs * len(instruction.inputs) * len(instruction.outs))

    def sum_plain(self, instruction: ops.SumPlain) -> Work:
        terms = sum(map(len, instruction.terms))
        return Work(0.0, _reading(terms) * self.limbs(instruction.inputs[0]) * terms)

    def chebyshev(self, instruction: ops.Chebyshev) -> Work:
        counter = _CountingArithmetic(self.params)
        scale = parse_scale(instruction.scale)
        polynomial.evaluate(counter, self.kind(instruction.a), instruction.coefficients, scale, instruction.split)
        return counter.work


def _reading(terms: int) -> float:
    """Passes for a limb of a product with a plaintext: very many plaintexts come from memory, not from a cache."""
    return 2.0 if terms <= CACHED else 4.0


class _CountingArithmetic(polynomial.TypeArithmetic):
    """Adds up the work of a polynomial."""

    def __init__(self, params: ParameterSet) -> None:
        super().__init__(params)
        self.work = Work()

    def _pass(self, x: CiphertextType, count: float) -> None:
        self.work += Work(0.0, count * len(self.params.q_moduli(x.level)))

    def add(self, x: CiphertextType, y: CiphertextType) -> CiphertextType:
        """Counted."""
        self._pass(x, 2.0)
        return super().add(x, y)

    def multiply_constant(self, x: CiphertextType, value: float, scale: Any) -> CiphertextType:
        """Counted."""
        self._pass(x, 2.0)
        return super().multiply_constant(x, value, scale)

    def multiply(self, x: CiphertextType, y: CiphertextType) -> CiphertextType:
        """Counted."""
        self._pass(x, 4.0)
        return super().multiply(x, y)

    def relinearise(self, x: CiphertextType) -> CiphertextType:
        """Counted."""
        self.work += Switch.at(self.params, x.level).whole
        return super().relinearise(x)

    def rescale(self, x: CiphertextType) -> CiphertextType:
        """Counted."""
        out = super().rescale(x)
        kept = len(self.params.q_moduli(out.level))
        dropped = len(self.params.q_moduli(x.level)) - kept
        self.work += Work(kept + dropped, kept * (dropped + 1.0)).times(2)
        return out


_WORK: dict[type[Instruction], Callable[[_Counting, Any], Work]] = {
    ops.Add: lambda c, i: c.passes(i, 2),
    ops.Subtract: lambda c, i: c.passes(i, 2),
    ops.Negate: lambda c, i: c.passes(i, 2),
    ops.AddPlain: lambda c, i: c.passes(i, 1),
    ops.AddConstant: lambda c, i: c.passes(i, 1),
    ops.MultiplyPlain: lambda c, i: c.passes(i, 2),
    ops.MultiplyConstant: lambda c, i: c.passes(i, 2),
    ops.Multiply: lambda c, i: c.passes(i, 4),
    ops.Relinearise: lambda c, i: c.switch(i.a).whole,
    ops.Rescale: _Counting.rescale,
    ops.Drop: lambda c, i: c.passes(i, 1),
    ops.Rotate: lambda c, i: c.switch(i.a).whole,
    ops.Conjugate: lambda c, i: c.switch(i.a).whole,
    ops.RotateHoisted: _Counting.hoisted,
    ops.Matrix: _Counting.matrix,
    ops.SumPlain: _Counting.sum_plain,
    ops.SumPeriodic: _Counting.periodic,
    ops.Chebyshev: _Counting.chebyshev,
    ops.SumSlots: _Counting.sum_slots,
}


def _switches(instruction: Instruction) -> int:
    if isinstance(instruction, ops.Relinearise | ops.Conjugate):
        return 1
    return len(instruction.rotations)


@lru_cache(maxsize=32)
def probe(params: ParameterSet, backend_name: str | None = None, seconds: float = 0.1) -> Machine:
    """Time transforms, passes and a whole key switch of these parameters for about `seconds`."""
    backend = find_backend(backend_name)
    moduli, n = params.q_moduli(params.max_level), params.n
    random = np.random.default_rng(0)
    x = np.stack([random.integers(0, q, n, dtype=np.uint64) for q in moduli])
    transform = _fastest(lambda: backend.ntt(x, moduli, n), seconds / 4) / len(moduli)
    one_pass = _fastest(lambda: backend.mul_add(x, x, x, moduli), seconds / 4) / len(moduli)
    parts = Machine(transform, one_pass, 0.0)
    if not params.special:
        return Machine(transform, one_pass)
    level = params.max_level
    switch, measured = Switch.at(params, level), _time_switch(backend, params, random, x, seconds / 2)
    ratio = measured / parts.seconds(switch.whole)
    return Machine(transform * ratio, one_pass * ratio)


def _time_switch(
    backend: Backend, params: ParameterSet, random: np.random.Generator, x: Residues, seconds: float
) -> float:
    """One key switch whose key comes from memory, as in a program, where every rotation has another key."""
    context = params.key_switch_context(params.max_level, params.max_level)
    limbs = [random.integers(0, q, params.n, dtype=np.uint64) for q in context.moduli]
    one = np.broadcast_to(np.stack(limbs), (len(context.digits), 2, len(limbs), params.n))
    count = max(1, min(MAX_PROBE_KEYS, PROBE_BYTES // one.nbytes))
    keys = cycle([np.ascontiguousarray(one) for _ in range(count)])
    composites = Composites(backend)
    return _fastest(lambda: composites.key_switch(x, next(keys), context), seconds)


def _fastest(call: Callable[[], object], seconds: float) -> float:
    """The fastest of the calls that fit: other processes only ever slow one down."""
    call()
    best, end = float("inf"), perf_counter() + seconds
    while True:
        start = perf_counter()
        call()
        now = perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


__all__ = ["NOMINAL", "Estimate", "Machine", "Switch", "Work", "estimate", "probe"]
