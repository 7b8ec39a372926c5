"""Key generation: secret, public and evaluation keys. The security bound is recomputed from the primes before any of
it.

b_d = -a_d·s + e_d + P·g_d·s' over Q_ℓ ∪ P for each digit d, with s' = s² or σ(s); P·g_d is P modulo the primes of d
and zero modulo all others (hybrid key switching: Han & Ki, eprint 2019/688). Every key has a public seed and a secret
seed of its own, fresh from the operating system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, EvaluationKey, EvaluationKeySet, KeySpec, key_half
from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters, ParameterSet
from lattice.fhe.ckks.public_key import PublicKey, public_half
from lattice.fhe.ckks.security import require_secure
from lattice.fhe.ckks.seeds import UniformPolynomial
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.sampling import SecretSource, fresh_seed, wipe
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.keys.secret_memory import encrypt_into, room, secret_memory
from lattice.fhe.ring.modulus import Residues

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
        memory = secret_memory(self.params.n, self.backend)
        with SecretSource() as source:
            uniform = source.ternary(self.params.n)
            memory.sample_ternary(uniform)
            wipe(uniform)
        return SecretKey(self.params, memory)

    def public_key(self, secret: SecretKey) -> PublicKey:
        """(b, a) over Q ∪ P; a as a seed."""
        self._check(secret)
        seed = fresh_seed()
        half = public_half(self.params, seed, self.params.max_level)
        b = room(len(half.moduli), self.params.n)
        with SecretSource() as source:
            self._fill(b, secret, half, source)
        return PublicKey(self.params.id, seed, b)

    def evaluation_key(self, secret: SecretKey, spec: KeySpec) -> EvaluationKey:
        """One key. See the module for the formula."""
        self._check(secret)
        spec.check(self.params)
        plan, seed = self.params.digit_plan(spec.level), fresh_seed()
        b = room(len(plan.digits), len(plan.moduli), self.params.n)
        with SecretSource() as source:
            for digit in range(len(plan.digits)):
                half = key_half(self.params, spec, seed, digit)
                self._fill(b[digit], secret, half, source, digit, plan.gadget(digit), spec.element)
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

    def _fill(
        self,
        out: Residues,
        secret: SecretKey,
        half: UniformPolynomial,
        source: SecretSource,
        number: int = 0,
        gadget: tuple[int, ...] | None = None,
        element: int = RELINEARISATION,
    ) -> None:
        """out = -a·s + e + gadget·s', with the source's error of that number."""
        error = source.error(self.params.n, number)
        encrypt_into(secret.memory, out, half, error, self.params.error_eta, gadget=gadget, element=element)
        wipe(error)

    def _check(self, secret: SecretKey) -> None:
        if secret.params.id != self.params.id:
            raise LatticeError(
                "parameters_mismatch", f"The secret key has parameters {secret.params.id}, not {self.params.id}."
            )
