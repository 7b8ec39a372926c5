"""The rows of `benchmarks.fhe_primitives` for one set of parameters on one number of threads, peers beside them.

Run as a module it is one pinned process: JSON on standard output, progress on standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import prod
from typing import Any, NamedTuple

import numpy as np

from benchmarks import fhe_floor as floor
from benchmarks.fhe_peers import Chain, Lattigo, Seal, available
from lattice.fhe.circuits.evaluator import Evaluator
from lattice.fhe.circuits.matrix import plan_diagonals, stored_diagonals
from lattice.fhe.circuits.polynomial import Series
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.presets import preset
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.hal.choose import choose
from lattice.fhe.hal.weights import Diagonals
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.ring.primes import find_primes
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import key_bytes

TARGETS = {
    ("rotation", 14, "Lattigo"): 5.0,
    ("rotation", 15, "Lattigo"): 4.0,
    ("rotation", 16, "Lattigo"): 2.5,
    ("rotation key generation", 14, "Lattigo"): 1.0,
    ("rotation key generation", 15, "Lattigo"): 1.0,
    ("rotation key generation", 16, "Lattigo"): 1.0,
}
HOISTED = 8
DIAGONALS = 64
DEGREE = 31
BLOCK = 4
HEXL_NTT_US = 33.6
"""The design's measurement of HEXL's forward transform at 2^15; HEXL is in no wheel, so it is not rerun."""


class Times(NamedTuple):
    """Milliseconds. The best shows how much other work on the machine disturbed the median."""

    median: float
    best: float

    def over(self, count: int) -> Times:
        """Of one of `count` that were measured together."""
        return Times(self.median / count, self.best / count)


def timed(calls: list[Callable[[], object]], budget_s: float) -> list[Times]:
    """Milliseconds of each: blocks of `BLOCK` calls in turn until the budget is spent, two at least. A block's first
    call does not count, because whoever ran before has left the caches full of its own."""
    times: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    while len(times[0]) < 2 * BLOCK or (time.perf_counter() - begun < budget_s and len(times[0]) < 100 * BLOCK):
        for own, call in zip(times, calls, strict=True):
            call()
            for _ in range(BLOCK):
                start = time.perf_counter()
                call()
                own.append((time.perf_counter() - start) * 1e3)
    return [Times(statistics.median(own), min(own)) for own in times]


class Bench:
    """One set of parameters on one number of threads."""

    def __init__(self, name: str, threads: int, backend_name: str | None, budget_s: float, peers: bool) -> None:
        self.params = preset(name)
        self.choice = choose(backend_name, threads=threads)
        self.threads, self.budget_s = threads, budget_s
        backend = self.choice.backend
        self.generator = KeyGenerator(self.params, backend)
        self.secret = self.generator.secret_key()
        self.top = self.params.max_level
        self.context = self.params.key_switch_context(self.top, self.top)
        self.limbs = f"{len(self.context.q_moduli)}+{len(self.context.special)}"
        self.encoder = Encoder(self.params, backend)
        self.encryptor = SecretKeyEncryptor(self.secret, backend)
        self.decryptor = Decryptor(self.secret, backend)
        self.values = np.random.default_rng(1).uniform(-1, 1, self.params.slots)
        self.plain = self.encoder.encode(self.values)
        self.x = self.encryptor.encrypt(self.plain).expand(self.params)
        self.machine = floor.measure(backend, threads)
        self.left_out: list[str] = []
        self.lattigo = self._peer(Lattigo) if peers else None
        self.seal = self._peer(Seal) if peers and self.params.log_n < 16 else None
        if peers and self.params.log_n == 16:
            self.left_out.append("SEAL at 2^16: the library stops at 2^15")

    def _peer(self, make: type[Any]) -> Any:
        bits = [q.bit_length() for q in self.params.q_moduli(self.top)]
        chain = Chain(
            self.params.log_n,
            tuple(bits),
            tuple(p.bit_length() for p in self.params.special),
            self.params.scale.numerator.bit_length() - 1,
        )
        found, why = available(make, chain)
        if found is None:
            self.left_out.append(why)
        return found

    def evaluator(self, specs: list[KeySpec]) -> Evaluator:
        """With fresh keys."""
        keys = self.generator.evaluation_keys(self.secret, specs)
        return Evaluator(self.params, keys, self.choice.backend)

    def row(
        self,
        name: str,
        ours: Callable[[], object],
        work: floor.Work | None,
        peers: dict[str, Callable[[], object]] | None = None,
        *,
        per: int = 1,
        **extra: Any,
    ) -> Iterator[dict[str, Any]]:
        """One row for each peer, or one without."""
        named = list((peers or {}).items()) or [("", None)]
        times = timed([ours, *(call for _, call in named if call)], self.budget_s)
        mine = times[0].over(per)
        for at, (peer, call) in enumerate(named):
            theirs = times[at + 1] if call else None
            yield self._finished(name, mine, peer or None, theirs, work, extra)

    def _finished(
        self, name: str, mine: Times, peer: str | None, theirs: Times | None, work: floor.Work | None, extra: Any
    ) -> dict[str, Any]:
        least, by = self.machine.floor_ms(work) if work else (None, None)
        target = TARGETS.get((name, self.params.log_n, (peer or "").partition(" ")[0]))
        return {
            "name": name,
            "n": self.params.n,
            "limbs": self.limbs,
            "threads": self.threads,
            "ours_ms": round(mine.median, 4),
            "ours_best_ms": round(mine.best, 4),
            "peer": peer,
            "peer_ms": round(theirs.median, 4) if theirs else None,
            "peer_best_ms": round(theirs.best, 4) if theirs else None,
            "ratio": round(theirs.median / mine.median, 2) if theirs else None,
            "target": target,
            "floor_ms": round(least, 4) if least else None,
            "floor_by": by,
            "times_floor": round(mine.median / least, 2) if least else None,
            "key_bytes": None,
            "peer_key_bytes": None,
            "error": None,
            **self.sizes(),
            **extra,
        }

    def sizes(self) -> dict[str, Any]:
        """What stands beside every latency."""
        if not hasattr(self, "_sizes"):
            seeded = self.encryptor.encrypt(self.plain)
            self._sizes = {
                "ciphertext_bytes_packed": len(encode_ciphertext(self.x, self.params)),
                "ciphertext_bytes_seeded": len(encode_ciphertext(seeded, self.params)),
                "log_qp": round(self.params.log_qp, 1),
                "log_qp_bound_128": max_log_qp(self.params.log_n, self.params.security),
                "security_bits": 128,
                "backend": self.choice.name,
                "isa": self.choice.isa,
            }
        return self._sizes

    def error(self, ciphertext: Any, wanted: Any) -> float:
        """The largest difference over all slots."""
        return float(f"{np.abs(self.decryptor.values(ciphertext) - wanted).max():.3g}")

    # --- the rows -----------------------------------------------------------------------------------------

    def rows(self) -> Iterator[dict[str, Any]]:
        """Everything for these parameters."""
        yield from self.switching()
        yield from self.client()
        if self.params.log_n < 16:
            yield from self.circuits()
        if self.params.log_n == 15:
            yield from self.transform()
        if self.lattigo:
            self.lattigo.close()

    def peers(self, lattigo: Callable[[Any], object] | None, seal: Callable[[Any], object] | None) -> dict[str, Any]:
        """The calls of those that are there."""
        out: dict[str, Any] = {}
        if lattigo and self.lattigo:
            out[Lattigo.name] = lambda: lattigo(self.lattigo)
        if seal and self.seal:
            out[f"{Seal.name}, one special prime"] = lambda: seal(self.seal)
        return out

    def switching(self) -> Iterator[dict[str, Any]]:
        """Rotation, hoisted rotation, product, rescale."""
        steps = list(range(1, HOISTED + 1))
        specs = [KeySpec.rotation(step, self.top, self.params) for step in steps]
        evaluator, x, v = self.evaluator([*specs, KeySpec.relinearisation(self.top)]), self.x, self.values
        theirs = self.lattigo.encrypt(self.lattigo.encode(v)) if self.lattigo else 0
        seals = self.seal.encrypt(self.seal.encode(list(v))) if self.seal else None
        bytes_of = {
            "key_bytes": key_bytes(specs[0], self.params),
            "peer_key_bytes": self.lattigo.rotation_key_bytes() if self.lattigo else None,
        }
        yield from self.row(
            "rotation",
            lambda: evaluator.rotate(x, 1),
            floor.rotation(self.context),
            self.peers(lambda p: p.rotate(theirs), lambda p: p.rotate(seals)),
            error=self.error(evaluator.rotate(x, 1), np.roll(v, -1)),
            **bytes_of,
        )
        yield from self.row(
            f"hoisted rotation, each of {HOISTED}",
            lambda: evaluator.rotate_many(x, steps),
            floor.hoisted(self.context, HOISTED),
            per=HOISTED,
            error=self.error(evaluator.rotate_many(x, steps)[-1], np.roll(v, -HOISTED)),
            **bytes_of,
        )
        yield from self.row(
            "multiply and relinearise",
            lambda: evaluator.multiply(x, x),
            floor.rotation(self.context),
            self.peers(lambda p: p.multiply(theirs, theirs), lambda p: p.multiply(seals, seals)),
            error=self.error(evaluator.multiply(x, x), v * v),
            key_bytes=key_bytes(KeySpec.relinearisation(self.top), self.params),
        )
        yield from self.rescaling(evaluator, theirs, seals)

    def rescaling(self, evaluator: Evaluator, theirs: int, seals: Any) -> Iterator[dict[str, Any]]:
        """Lattigo rescales in place through this wheel, so its products are made outside the measured time."""
        product = evaluator.multiply(self.x, self.x)
        dropped = len(self.params.dropped(self.top))
        work = floor.rescale(self.params.n, len(self.context.q_moduli) - dropped, dropped)
        peers = self.peers(None, lambda p: p.rescale(seal_product))
        seal_product = self.seal.multiply(seals, seals) if self.seal else None
        error = self.error(evaluator.rescale(product), self.values**2)
        if self.lattigo:
            taken = []
            for _ in range(15):
                one = self.lattigo.product(theirs, theirs)
                start = time.perf_counter()
                self.lattigo.rescale(one)
                taken.append((time.perf_counter() - start) * 1e3)
                self.lattigo.delete(one)
            (mine,) = timed([lambda: evaluator.rescale(product)], self.budget_s / 4)
            extra = {"error": error}
            theirs_took = Times(statistics.median(taken), min(taken))
            yield self._finished("rescale", mine, Lattigo.name, theirs_took, work, extra)
        if peers or not self.lattigo:
            yield from self.row("rescale", lambda: evaluator.rescale(product), work, peers, error=error)

    def client(self) -> Iterator[dict[str, Any]]:
        """Key generation, encoding, encryption, decryption."""
        v, spec = self.values, KeySpec.rotation(1, self.top, self.params)
        single, listed = v.astype(np.float32), list(v)
        theirs = self.lattigo.encode(single) if self.lattigo else 0
        cipher = self.lattigo.encrypt(theirs) if self.lattigo else 0
        seals = self.seal.encode(listed) if self.seal else None
        seal_cipher = self.seal.encrypt(seals) if self.seal else None
        wide = len(self.context.digits) * len(self.context.moduli)
        limbs = len(self.context.q_moduli)
        yield from self.row(
            "rotation key generation",
            lambda: self.generator.evaluation_key(self.secret, spec),
            floor.transforms(self.params.n, wide) + floor.pointwise(self.params.n, wide, 2),
            self.peers(lambda p: p.new_rotation_key(), lambda p: p.new_rotation_key()),
            key_bytes=key_bytes(spec, self.params),
            peer_key_bytes=self.lattigo.rotation_key_bytes() if self.lattigo else None,
        )
        once = floor.transforms(self.params.n, limbs)
        yield from self.row(
            "encode",
            lambda: self.encoder.encode(v),
            once,
            self.peers(lambda p: p.encode(single), lambda p: p.encode(listed)),
        )
        yield from self.row(
            "encrypt, secret key, seeded",
            lambda: self.encryptor.encrypt(self.plain),
            once,
            self.peers(None, lambda p: p.encrypt(seals)),
        )
        public = PublicKeyEncryptor(self.params, self.generator.public_key(self.secret), self.choice.backend)
        yield from self.row(
            "encrypt, public key",
            lambda: public.encrypt(self.plain),
            floor.transforms(self.params.n, 5 * len(self.context.moduli)),
            self.peers(lambda p: p.delete(p.encrypt(theirs)), None),
            error=self.error(public.encrypt(self.plain), v),
        )
        yield from self.row(
            "decrypt",
            lambda: self.decryptor.decrypt(self.x),
            floor.pointwise(self.params.n, limbs, 3),
            self.peers(lambda p: p.lib.DeletePlaintext(p.decrypt(cipher)), lambda p: p.decrypt(seal_cipher)),
            error=self.error(self.x, v),
        )

    def circuits(self) -> Iterator[dict[str, Any]]:
        """A matrix of 64 diagonals and a Chebyshev series of degree 31, both as Lattigo's own circuits do them."""
        rng, slots, v = np.random.default_rng(2), self.params.slots, self.values
        diagonals = {i: rng.uniform(-1, 1, slots).astype(np.complex128) / DIAGONALS for i in range(DIAGONALS)}
        plan = plan_diagonals(diagonals, slots)
        scale = Fraction(prod(self.params.dropped(self.top)))
        polys = self.encoder.encode_over(stored_diagonals(diagonals, plan), scale, self.context.moduli)
        stored = Diagonals(self.params.id, self.top, scale, polys)
        specs = [KeySpec.rotation(step, self.top, self.params) for step in plan.rotations]
        evaluator = self.evaluator([*specs, KeySpec.relinearisation(self.top)])
        transform = cipher = poly = 0
        series = Series(tuple(rng.uniform(-1, 1, DEGREE + 1) / DEGREE))
        if self.lattigo:
            cipher = self.lattigo.encrypt(self.lattigo.encode(v))
            transform = self.lattigo.linear_transform({i: d.real for i, d in diagonals.items()})
            poly = self.lattigo.chebyshev(series.coefficients)
        wanted = sum(d.real * np.roll(v, -i) for i, d in diagonals.items())
        on = evaluator._on
        yield from self.row(
            f"matrix of {DIAGONALS} diagonals",
            lambda: on.matrix([self.x], stored, plan.product),
            floor.matrix(self.context, len(plan.product.babies) - 1, len(plan.product.giants) - 1, DIAGONALS),
            self.peers(lambda p: p.apply(transform, cipher), None),
            error=self.error(on.matrix([self.x], stored, plan.product)[0], wanted),
            key_bytes=sum(key_bytes(spec, self.params) for spec in specs),
            peer_key_bytes=self.lattigo.rotation_key_bytes() * self.lattigo.transform_keys if self.lattigo else None,
            weight_bytes=polys.nbytes,
            rotations=len(specs),
        )
        yield from self.row(
            f"Chebyshev series of degree {DEGREE}",
            lambda: evaluator.polynomial(self.x, series, split=3),
            None,
            self.peers(lambda p: p.evaluate(poly, cipher), None),
            error=self.error(evaluator.polynomial(self.x, series, split=3), series(v)),
            key_bytes=key_bytes(KeySpec.relinearisation(self.top), self.params),
        )

    def transform(self) -> Iterator[dict[str, Any]]:
        """One limb forward, many in a batch: what the wheel's peers do not show alone."""
        n, batch = self.params.n, 32
        (q,) = find_primes(49, n, 1, [])
        x = np.random.default_rng(3).integers(0, q, (batch, 1, n), dtype=np.uint64)
        backend = self.choice.backend
        yield from self.row(
            "forward transform of one limb",
            lambda: backend.ntt(x, (q,), n),
            floor.transforms(n, 1),
            per=batch,
            note=f"HEXL, as measured for the design on such a core: {HEXL_NTT_US / 1e3:.4f} ms; target at most that",
        )


def main() -> None:
    """One process: pinned by its parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--backend")
    given = parser.parse_args()
    bench = Bench(given.preset, given.threads, given.backend, given.seconds, peers=given.threads == 1)
    out: dict[str, Any] = {"rows": []}
    for row in bench.rows():
        print(f"  {row['name']}: {row['ours_ms']} ms, {row['peer']} {row['peer_ms']}", file=sys.stderr)
        out["rows"].append(row)
    out["left_out"] = bench.left_out
    out["machine"] = bench.machine._asdict() | {"backend": bench.choice.explain(), "isas": bench.choice.isas}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
