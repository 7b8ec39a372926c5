"""Key generation: secret, public and evaluation keys. The security bound is recomputed from the primes before any of
it.

b_d = -a_d·s + e_d + P·g_d·s' over Q_ℓ ∪ P for each digit d, with s' = s² or σ(s); P·g_d is P modulo the primes of d
and zero modulo all others (hybrid key switching: Han & Ki, eprint 2019/688). Every key has a public seed and a secret
seed of its own, fresh from the operating system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, EvaluationKey, EvaluationKeySet, KeySpec, key_uniform
from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters, ParameterSet
from lattice.fhe.ckks.public_key import PublicKey, public_uniform
from lattice.fhe.ckks.security import require_secure
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.sampling import SecretSource, fresh_seed, wipe
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import Residues, reduce_signed

__all__ = ["EvaluationKey", "EvaluationKeySet", "KeyGenerator", "KeySpec"]


def recompute_bound(params: ParameterSet) -> None:
    """Refuse to touch a secret unless the primes, looked at anew, are within the bound. Test rings are let by."""
    if type(params) is InsecureTestParameters:
        return
    if type(params) is not Parameters:
        raise LatticeError("parameters_insecure", "These parameters are of an unknown kind.")
    Parameters.from_dict(params.to_dict())
    require_secure(params, params.security)


class KeyGenerator:
    """Makes the keys of one set of parameters."""

    def __init__(self, params: ParameterSet, backend: Backend | None = None) -> None:
        recompute_bound(params)
        self.params = params
        self.backend = backend or find_backend()

    def secret_key(self) -> SecretKey:
        """A fresh ternary secret."""
        wide = SecretSource().ternary(self.params.n)
        coefficients = wide.astype(np.int8)
        wipe(wide)
        return SecretKey(self.params, coefficients)

    def public_key(self, secret: SecretKey) -> PublicKey:
        """(b, a) over Q ∪ P; a as a seed."""
        self._check(secret)
        moduli, seed = self.params.primes(), fresh_seed()
        s = secret.ntt(moduli, self.backend)
        a = public_uniform(self.params, seed, self.params.max_level)
        error, masked = self._error(SecretSource(), moduli), self.backend.mul(a, s, moduli)
        b = self.backend.sub(error, masked, moduli)
        wipe(s, error, masked)
        return PublicKey(self.params.id, seed, b)

    def evaluation_key(self, secret: SecretKey, spec: KeySpec) -> EvaluationKey:
        """One key. See the module for the formula."""
        self._check(secret)
        spec.check(self.params)
        plan = self.params.digit_plan(spec.level)
        moduli, seed, source = plan.moduli, fresh_seed(), SecretSource()
        s = secret.ntt(moduli, self.backend)
        target = self._target(s, spec)
        total = prod(plan.special)
        b = np.empty((len(plan.digits), len(moduli), self.params.n), dtype=np.uint64)
        for digit, (start, end) in enumerate(plan.digits):
            masked = self.backend.mul(key_uniform(self.params, spec, seed, digit), s, moduli)
            error = self._error(source, moduli, digit)
            b[digit] = self.backend.sub(error, masked, moduli)
            primes = moduli[start:end]
            lifted = self.backend.mul_scalar(target[start:end], [total % q for q in primes], primes)
            b[digit, start:end] = self.backend.add(b[digit, start:end], lifted, primes)
            wipe(masked, error, lifted)
        wipe(s, target)
        return EvaluationKey(self.params.id, spec, seed, b)

    def evaluation_keys(
        self,
        secret: SecretKey,
        specs: Iterable[KeySpec] = (),
        *,
        relinearisation: int | None = None,
        rotations: Mapping[int, int] | Iterable[int] = (),
        conjugation: int | None = None,
    ) -> EvaluationKeySet:
        """The keys that a program asks for. Levels are the highest at which a key serves; rotations without one get
        the top level."""
        wanted = dict.fromkeys(specs)
        top = self.params.max_level
        by_steps = rotations if isinstance(rotations, Mapping) else dict.fromkeys(rotations, top)
        if relinearisation is not None:
            wanted[KeySpec.relinearisation(relinearisation)] = None
        for steps, level in by_steps.items():
            wanted[KeySpec.rotation(steps, level, self.params)] = None
        if conjugation is not None:
            wanted[KeySpec.conjugation(conjugation, self.params)] = None
        return EvaluationKeySet(self.params, [self.evaluation_key(secret, spec) for spec in wanted])

    def _target(self, s: Residues, spec: KeySpec) -> Residues:
        """s' over the q primes."""
        moduli = self.params.q_moduli(spec.level)
        own = np.ascontiguousarray(s[: len(moduli)])
        if spec.element == RELINEARISATION:
            return self.backend.mul(own, own, moduli)
        return self.backend.automorphism_ntt(own, spec.element)

    def _error(self, source: SecretSource, moduli: tuple[int, ...], number: int = 0) -> Residues:
        small = source.error(self.params.n, self.params.error_eta, number)
        residues = reduce_signed(small, moduli)
        out = self.backend.ntt(residues, moduli, self.params.n)
        wipe(small, residues)
        return out

    def _check(self, secret: SecretKey) -> None:
        if secret.params.id != self.params.id:
            raise LatticeError(
                "parameters_mismatch", f"The secret key has parameters {secret.params.id}, not {self.params.id}."
            )
