"""Keys are what the formula says, their seeds are used once, and insecure parameters get none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks import seeds
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKey, EvaluationKeySet, KeySpec
from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters
from lattice.fhe.ckks.public_key import public_uniform
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys import evaluation, sampling
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import Residues
from lattice.fhe.ring.rns import to_integers
from tests.support.fhe import deep, evaluations, small, tiny

B = ReferenceBackend()


def centred(poly: Residues, moduli: tuple[int, ...]) -> np.ndarray:
    """Evaluations as signed integers."""
    return np.array(to_integers(B.intt(poly, moduli, poly.shape[-1]), moduli), dtype=object)


def phase_error(key: EvaluationKey, secret: SecretKey, target: Residues) -> list[np.ndarray]:
    """b_d + a_d·s - P·g_d·s' for each digit: the errors."""
    params = secret.params
    plan = params.digit_plan(key.spec.level)
    s = evaluations(secret, plan.moduli)
    out = []
    for digit in range(len(plan.digits)):
        phase = B.mul_add(key.b[digit], key.uniform_half(params, digit), s, plan.moduli)
        lifted = B.mul_scalar(target, plan.gadget(digit), plan.moduli)
        out.append(centred(B.sub(phase, lifted, plan.moduli), plan.moduli))
    return out


@pytest.mark.parametrize("level", [4, 2, 0])
@pytest.mark.parametrize("kind", ["relinearisation", "rotation", "conjugation"])
def test_a_key_is_its_formula(generator: KeyGenerator, secret: SecretKey, level: int, kind: str) -> None:
    p = deep()
    spec = {
        "relinearisation": KeySpec.relinearisation(level),
        "rotation": KeySpec.rotation(3, level, p),
        "conjugation": KeySpec.conjugation(level, p),
    }[kind]
    key = generator.evaluation_key(secret, spec)
    plan = p.digit_plan(level)
    s = evaluations(secret, plan.moduli)
    target = B.mul(s, s, plan.moduli) if kind == "relinearisation" else B.automorphism_ntt(s, spec.element)
    errors = phase_error(key, secret, target)
    assert len(errors) == len(plan.digits)
    for error in errors:
        assert np.abs(error).max() <= 21
        assert 2.9 < error.astype(float).std() < 3.6
    assert len({tuple(error) for error in errors}) == len(errors)


def test_the_public_key_is_its_formula(generator: KeyGenerator, secret: SecretKey) -> None:
    p = deep()
    public = generator.public_key(secret)
    phase = B.mul_add(public.b, public_uniform(p, public.seed, 4), evaluations(secret, p.primes()), p.primes())
    error = centred(phase, p.primes())
    assert np.abs(error).max() <= 21


def switch(c: Residues, key: Residues, level: int, params: Parameters | InsecureTestParameters) -> Residues:
    context = params.key_switch_context(level)
    product = B.gadget_product(B.decompose(c, context), key, context)
    return B.mod_down(product, context.q_moduli, context.special)


@pytest.mark.parametrize(("level", "key_level"), [(4, 4), (3, 4), (3, 3), (1, 4), (0, 2)])
def test_a_switched_ciphertext_decrypts_under_the_secret(
    generator: KeyGenerator, secret: SecretKey, level: int, key_level: int
) -> None:
    p = deep()
    moduli = p.q_moduli(level)
    key = generator.evaluation_key(secret, KeySpec.relinearisation(key_level)).tensor(p)
    c = np.stack([np.random.default_rng(q).integers(0, q, p.n, dtype=np.uint64) for q in moduli])
    s = evaluations(secret, moduli)
    switched = switch(c, key, level, p)
    difference = B.sub(B.mul_add(switched[0], switched[1], s, moduli), B.mul(c, B.mul(s, s, moduli), moduli), moduli)
    error = np.abs(centred(difference, moduli)).max()
    digits = p.key_switch_context(level).digits
    ratio = max(prod(moduli[start:end]) for start, end in digits) / prod(p.special)
    assert error < max(1.0, ratio) * 21 * p.n * len(digits) + p.n


def test_seeds_are_fresh_for_every_object_and_streams_for_every_polynomial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The registry: over everything that a client does, no seed serves twice and no stream is read twice."""
    drawn: list[bytes] = []
    streams: Counter[tuple[bytes, bytes]] = Counter()
    real_seed, real_fill = sampling.fresh_seed, sampling.fill_random
    real_stream, real_half = seeds.KeyStream.__init__, seeds.UniformPolynomial.__init__

    def counting_seed() -> bytes:
        drawn.append(real_seed())
        return drawn[-1]

    def counting_fill(out: np.ndarray) -> None:
        real_fill(out)
        drawn.append(out.tobytes())

    def counting_stream(self: seeds.KeyStream, seed: bytes, kind: int, digit: int = 0, prime: int = 0) -> None:
        if kind >= 0x8000:  # public ones are counted below, whoever expands them
            streams[bytes(seed), seeds.stream_id(kind, digit, prime)] += 1
        real_stream(self, seed, kind, digit, prime)

    def counting_half(
        self: seeds.UniformPolynomial,
        seed: bytes,
        kind: int,
        digit: int,
        moduli: Sequence[int],
        indices: Sequence[int],
        n: int,
    ) -> None:
        for index in indices:
            streams[seed, seeds.stream_id(kind, digit, index)] += 1
        real_half(self, seed, kind, digit, moduli, indices, n)

    monkeypatch.setattr(sampling, "fresh_seed", counting_seed)
    monkeypatch.setattr(sampling, "fill_random", counting_fill)
    monkeypatch.setattr(evaluation, "fresh_seed", counting_seed)
    monkeypatch.setattr("lattice.fhe.keys.encryptor.fresh_seed", counting_seed)
    monkeypatch.setattr(seeds.KeyStream, "__init__", counting_stream)
    monkeypatch.setattr(seeds.UniformPolynomial, "__init__", counting_half)

    p = small()
    generator = KeyGenerator(p)
    secret = generator.secret_key()
    public = generator.public_key(secret)
    keys = generator.evaluation_keys(secret, relinearisation=1, rotations=[1, 2, -1], conjugation=1)
    ciphertexts = [SecretKeyEncryptor(secret).encrypt_values([1.0]) for _ in range(3)]
    assert all(streams[key] == 1 for key in streams), "a stream was read twice"
    assert len(set(drawn)) == len(drawn)
    assert {seed for seed, _ in streams} <= set(drawn)
    published = {public.seed, *(key.seed for key in keys), *(c.seed for c in ciphertexts)}
    assert len(published) == 1 + len(keys) + len(ciphertexts)
    used = {kind for seed, kind in streams if seed in published}
    assert all(kind[0] < 0x80 for kind in used), "a secret came out of a public seed"
    secret_seeds = {seed for seed, kind in streams if kind[0] >= 0x80}
    assert not secret_seeds & published
    before = Counter(streams)
    PublicKeyEncryptor(p, public).encrypt_values([1.0])
    fresh = streams - before
    assert all(seed == public.seed or seed in drawn for seed, _ in fresh)


def test_insecure_parameters_get_no_key() -> None:
    class Pretending(InsecureTestParameters):
        insecure = False

    p = tiny()
    fake = Pretending(p.log_n, p.base, p.levels, p.special, p.scale)
    with pytest.raises(LatticeError) as caught:
        KeyGenerator(fake)
    assert caught.value.code == "parameters_insecure"


def test_the_bound_is_recomputed_from_the_primes() -> None:
    good = deep()
    forged = Parameters.from_dict(good.to_dict())
    object.__setattr__(forged, "special", good.special + small().special)
    with pytest.raises(LatticeError) as caught:
        KeyGenerator(forged)
    assert caught.value.code == "parameters_insecure"
    assert caught.value.details["log_qp"] > 214


def test_a_key_set_finds_the_nearest_level(generator: KeyGenerator, secret: SecretKey) -> None:
    p = deep()
    keys = generator.evaluation_keys(
        secret, [KeySpec.rotation(1, 3, p)], relinearisation=2, rotations={1: 1}, conjugation=0
    )
    g = KeySpec.rotation(1, 0, p).element
    assert [keys.get(g, level).spec.level for level in range(4)] == [1, 1, 3, 3]
    assert keys.find(g, 4) is None
    assert keys.tensor(g, 4) is None
    found = keys.tensor(0, 1)
    assert found is not None
    assert found is keys.tensor(0, 2)
    assert found.shape == (len(p.digit_plan(2).digits), 2, len(p.digit_plan(2).moduli), p.n)
    with pytest.raises(LatticeError, match=r"galois-5@4 .*there is relinearisation@2, galois-5@1") as caught:
        keys.get(g, 4)
    assert caught.value.code == "missing_evaluation_key"


def test_ids_and_hashes_depend_on_every_byte(generator: KeyGenerator, secret: SecretKey) -> None:
    p = deep()
    key = generator.evaluation_key(secret, KeySpec.conjugation(0, p))
    changed = key.b.copy()
    changed[0, 0, 0] ^= 1
    other = EvaluationKey(key.params_id, key.spec, key.seed, changed)
    assert key.hash != other.hash
    assert EvaluationKeySet(p, [key]).id != EvaluationKeySet(p, [other]).id
    assert EvaluationKeySet(p, [key]).id.startswith("evk_")
    assert "galois-16383@0" in repr(EvaluationKeySet(p, [key]))


def test_keys_of_other_parameters_are_refused(generator: KeyGenerator, secret: SecretKey) -> None:
    key = generator.evaluation_key(secret, KeySpec.relinearisation(0))
    with pytest.raises(LatticeError) as caught:
        EvaluationKeySet(small(), [key])
    assert caught.value.code == "parameters_mismatch"
    with pytest.raises(LatticeError, match="there twice"):
        EvaluationKeySet(deep(), [key, key])
    with pytest.raises(LatticeError, match="secret key has parameters"):
        KeyGenerator(small()).evaluation_key(secret, KeySpec.relinearisation(0))
    with pytest.raises(LatticeError):
        generator.evaluation_key(secret, KeySpec(2, 0))
    with pytest.raises(LatticeError):
        generator.evaluation_key(secret, KeySpec(5, 9))


def test_the_encrypted_square_relinearises(generator: KeyGenerator, secret: SecretKey) -> None:
    p = deep()
    values = np.linspace(-2, 2, p.slots)
    c = SecretKeyEncryptor(secret).encrypt_values(values).expand(p).components
    moduli = p.q_moduli(4)
    tensor = [B.mul(c[0], c[0], moduli), B.mul_scalar(B.mul(c[0], c[1], moduli), [2] * 6, moduli)]
    top = B.mul(c[1], c[1], moduli)
    key = generator.evaluation_key(secret, KeySpec.relinearisation(4)).tensor(p)
    folded = B.add(np.stack(tensor), switch(top, key, 4, p), moduli)
    decryptor = Decryptor(secret)
    for components in (np.stack([*tensor, top]), folded):
        got = decryptor.real_values(Ciphertext(p.id, 4, p.scale**2, components))
        assert np.allclose(got, values**2, atol=1e-3)
