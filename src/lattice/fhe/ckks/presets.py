"""Named parameters, one or two for each ring degree. log2(QP) is in each line; the bounds are in `security`.

Figures are bits: base | levels | special primes. `python -c "from lattice.fhe.ckks.presets import table;
print(table())"`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import Parameters, parameters
from lattice.fhe.ckks.security import max_log_qp

PRESETS: dict[str, Callable[[], Parameters]] = {
    # One multiplication by weights, no evaluation key at all: linear and logistic models.
    "linear-2048": partial(parameters, log_n=11, base_bits=50, scale_bits=20),
    # One level and rotations.
    "small-4096": partial(parameters, log_n=12, base_bits=36, level_bits=[26], special_bits=[40], scale_bits=26),
    # The square-activation MLP and LoLA of the design: Q = 50 + 4·26, P = 57 bits in two primes.
    "mlp-8192": partial(parameters, log_n=13, base_bits=50, level_bits=[26] * 4, special_bits=[29, 28], scale_bits=26),
    # LeNet of the design: Q = 50 + 6·28, P in two primes.
    "lenet-16384": partial(
        parameters, log_n=14, base_bits=50, level_bits=[28] * 6, special_bits=[45, 45], scale_bits=28
    ),
    # The rotation benchmark of the design at 2^14: seven and two limbs.
    "deep-16384": partial(
        parameters, log_n=14, base_bits=50, level_bits=[45] * 6, special_bits=[50, 50], scale_bits=45
    ),
    # 16 and 3 limbs.
    "deep-32768": partial(
        parameters, log_n=15, base_bits=50, level_bits=[44] * 15, special_bits=[50, 50, 50], scale_bits=44
    ),
    # 24 and 4 limbs.
    "deep-65536": partial(
        parameters, log_n=16, base_bits=50, level_bits=[48] * 23, special_bits=[50, 50, 50, 50], scale_bits=48
    ),
}


@cache
def preset(name: str) -> Parameters:
    """The parameters of that name."""
    if name not in PRESETS:
        raise LatticeError("invalid_parameters", f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]()


def table() -> str:
    """The presets as text, for people."""
    lines = []
    for name in PRESETS:
        p = preset(name)
        bound = max_log_qp(p.log_n, p.security)
        lines.append(f"{name}: N=2^{p.log_n}, levels {p.max_level}, log2(QP) {p.log_qp:.1f} of {bound}, id {p.id}")
    return "\n".join(lines)
