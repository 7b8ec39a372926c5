"""The best program for a model: every ring that may do, every precision that is needed, judged by prediction.

For each ring, smallest first, the circuit is packed into its slots, and scale bits are raised until the predicted error
is small enough. Larger rings are slower unless they save ciphertexts, so after the first that will do only the next one
is looked at, and only if packing is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log2
from time import perf_counter
from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.circuit import Circuit, Real
from lattice.fhe.compiler.levels import sizes, wiring
from lattice.fhe.compiler.levels.build import Built, build
from lattice.fhe.compiler.levels.cost import Estimate, Machine, estimate
from lattice.fhe.compiler.levels.options import Goal, Options
from lattice.fhe.compiler.levels.parameters import BASE_BITS, Need, shapes, too_deep
from lattice.fhe.compiler.levels.predict import Errors, predict
from lattice.fhe.compiler.levels.trace import Magnitudes, magnitudes

SCALE_BITS = (24, 26, 28, 30, 33, 36, 40, 44, 47)
COARSE_SCALE_BITS, COARSE = (20, 22), 4e-3
"""Scales that do only where the error may be so large a part of the results' spread."""
QUICK_SECONDS = 1.5
KEY_PRICES = (None, 2.0, 6.0, 20.0, 200.0)
"""Prices of keys that packing is told, one after another, until a key budget is met."""
FREE_KEY_BYTES, FREE_KEY_PRICE = 4 << 20, 0.1
"""Keys of fewer bytes than these are not worth saving: where they are that small, more of them are tried for speed."""
SMALLEST_RING, LARGEST_RING = 11, 16
LONGEST_JUMP = 4.0
LEAST_BASE = 10
"""Bits that a base prime has beyond the scale, however small the results."""
SEARCHABLE = ("model_too_deep", "invalid_parameters", "packing_failed", "parameters_insecure", "level_exhausted")
"""What a larger ring or another scale may put right."""


@dataclass(frozen=True, eq=False)
class Found:
    """One way to run the model, and what it would cost."""

    built: Built
    errors: Errors
    estimate: Estimate
    key_bytes: int
    precise: bool
    """Whether the predicted error is within what was asked for."""


class Candidate(NamedTuple):
    """A program before its errors are known."""

    built: Built
    estimate: Estimate
    key_bytes: int


def search(
    pack: Callable[[int, float | None], Circuit],
    inputs_of: Callable[[Circuit], list[Real]],
    options: Options,
    machine: Callable[[ParameterSet], Machine],
    *,
    least_depth: int = 0,
    last_linear: bool = False,
) -> Found:
    """`pack` gives a circuit for a number of slots and a price of keys (None: the packing's own), `inputs_of`
    calibration samples in its input slots. Rings that cannot hold `least_depth` levels are not packed for, with which a
    model that is `last_linear` leaves its last layer unrescaled."""
    found: list[Found] = []
    faults: list[LatticeError] = []
    for log_n in rings(options):
        start = perf_counter()
        try:
            require_depth(least_depth, log_n, options, last_linear=last_linear)
            best = _within_budget(pack, 1 << (log_n - 1), inputs_of, options, machine)
            quick = perf_counter() - start < QUICK_SECONDS
        except LatticeError as fault:
            if fault.code not in SEARCHABLE:
                raise
            faults.append(fault)
            continue
        found.append(best)
        if best.precise and (len(found) > 1 or not quick or is_single(best.built.circuit)):
            break
    if not found:
        raise _most_telling(faults)
    return min(found, key=lambda each: rank(each, options))


def _within_budget(
    pack: Callable[[int, float | None], Circuit],
    slots: int,
    inputs_of: Callable[[Circuit], list[Real]],
    options: Options,
    machine: Callable[[ParameterSet], Machine],
) -> Found:
    """Packed ever thriftier with keys until they fit the budget, where there is one."""

    def at(price: float | None) -> Found:
        circuit = wiring.masked(pack(slots, price))
        return _best(circuit, inputs_of(circuit), options, machine)

    best = at(KEY_PRICES[0])
    for price in KEY_PRICES[1:]:
        if options.max_key_bytes is None or best.key_bytes <= options.max_key_bytes:
            break
        best = min(best, at(price), key=lambda each: rank(each, options))
    if options.goal is Goal.LATENCY and 0 < best.key_bytes <= FREE_KEY_BYTES:
        more = at(FREE_KEY_PRICE)
        if more.key_bytes <= FREE_KEY_BYTES:
            best = min(best, more, key=lambda each: rank(each, options))
    return best


def require_depth(depth: int, log_n: int, options: Options, *, last_linear: bool = False) -> None:
    """`model_too_deep` where not even the smallest primes would do: with an unrescaled last layer over a full base
    prime, or with a level more over a small one."""
    scale_bits, keys = _scales(options)[0], depth > 0
    small = (min(BASE_BITS, scale_bits + LEAST_BASE),)
    needs = [Need(depth, scale_bits, (BASE_BITS,) if last_linear else small, keys)]
    if last_linear:
        needs.append(Need(depth + 1, scale_bits, small, keys))
    if not any(shapes(need, log_n, options.security) for need in needs):
        raise too_deep(needs[0], options.security, log_n)


class Variant(NamedTuple):
    """How a circuit is lowered.

    Unrescaled, the last weights share the lowest modulus with the values: large sums then lack precision, at any scale.
    Balancing the two scales regains some of it.
    """

    rescale_last: bool = False
    balance: bool = False


def _variants(circuit: Circuit) -> list[Variant]:
    """The cheapest first."""
    if not wiring.last_linear(circuit):
        return [Variant()]
    return [Variant(), Variant(balance=True), Variant(rescale_last=True)]


def has_folds(circuit: Circuit) -> bool:
    """Whether it matters where folds stand."""
    return any(getattr(step, "fold", ()) for step in circuit.steps)


def is_single(circuit: Circuit) -> bool:
    """Whether one ciphertext holds everything at every step: more slots could save nothing."""
    return len(circuit.inputs) == 1 and all(len(wiring.makes(step)) == 1 for step in circuit.steps)


def rings(options: Options) -> Iterable[int]:
    """The rings to look at."""
    return [options.log_n] if options.log_n is not None else range(SMALLEST_RING, LARGEST_RING + 1)


def rank(found: Found, options: Options) -> tuple[bool, bool, float]:
    """Precise before imprecise, then by price."""
    return not found.precise, *_price(found.key_bytes, found.estimate, options)


def _price(key_bytes: int, time: Estimate, options: Options) -> tuple[bool, float]:
    """Within the key budget before not, then the goal."""
    over = options.max_key_bytes is not None and key_bytes > options.max_key_bytes
    thrifty = over or options.goal is Goal.KEYS
    return over, float(key_bytes) if thrifty else time.seconds


def _best(circuit: Circuit, inputs: list[Real], options: Options, machine: Callable[[ParameterSet], Machine]) -> Found:
    """The first scale, and for it the first way of treating the last layer, that is precise enough."""
    seen = magnitudes(circuit, inputs)
    found: list[Found] = []
    faults: list[LatticeError] = []
    least = 0.0
    for scale_bits in _scales(options):
        if scale_bits < least:
            continue
        built, before = 0, len(found)
        for variant in _variants(circuit):
            try:
                candidates = _candidates(circuit, seen, options, scale_bits, variant, machine)
            except LatticeError as fault:
                if fault.code not in SEARCHABLE:
                    raise
                faults.append(fault)
                continue
            built += 1
            found += _judged(candidates, inputs, options)
            if found[-1].precise:
                return found[-1]
        if not built:
            if scale_bits >= SCALE_BITS[0] or options.scale_bits is not None:
                break
            faults = []  # smaller primes may just be too few
            continue
        missing = min(each.errors.deviation / _allowed(each.errors, options) for each in found[before:])
        # Errors fall as scales rise, or faster where a polynomial had left its interval: no long jumps.
        least = scale_bits + min(log2(missing) - 1.0, LONGEST_JUMP)
    if not found:
        raise faults[0]
    return min(found, key=lambda each: rank(each, options))


def _candidates(
    circuit: Circuit,
    seen: Magnitudes,
    options: Options,
    scale_bits: int,
    variant: Variant,
    machine: Callable[[ParameterSet], Machine],
) -> list[Candidate]:
    """With folds before and behind the rescale, the better first as far as time and keys tell."""
    found = []
    for fold_first in (False, True) if has_folds(circuit) else (False,):
        built = build(circuit, seen, options, scale_bits=scale_bits, fold_first=fold_first, **variant._asdict())
        keys = sizes.evaluation_keys(built.params, built.program.checked.keys)
        time = estimate(built.program, built.lowered.layers, machine(built.params))
        found.append(Candidate(built, time, keys))
    return sorted(found, key=lambda each: _price(each.key_bytes, each.estimate, options))


def _judged(candidates: list[Candidate], inputs: list[Real], options: Options) -> list[Found]:
    """Up to the first that is precise: that takes a simulation, the rest is known."""
    found = []
    for candidate in candidates:
        errors = predict(candidate.built, inputs)
        precise = errors.deviation <= _allowed(errors, options)
        found.append(Found(candidate.built, errors, candidate.estimate, candidate.key_bytes, precise))
        if precise:
            break
    return found


def _allowed(errors: Errors, options: Options) -> float:
    """The largest deviation that is asked for."""
    return options.noise * errors.spread


def _scales(options: Options) -> tuple[int, ...]:
    if options.scale_bits is not None:
        return (options.scale_bits,)
    return (*COARSE_SCALE_BITS, *SCALE_BITS) if options.noise >= COARSE else SCALE_BITS


def _most_telling(faults: list[LatticeError]) -> LatticeError:
    """Depth before packing before anything else; of equal ones the last, which is about the largest ring."""
    for code in ("model_too_deep", "packing_failed"):
        for fault in reversed(faults):
            if fault.code == code:
                return fault
    return faults[-1]
