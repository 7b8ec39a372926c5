"""Peers of the encrypted core in the same process: Lattigo through the `orion-fhe` wheel, SEAL through `tenseal`.

Neither is a dependency of Lattice; whatever is not installed is left out and said. `pip install --no-deps orion-fhe`
brings Lattigo v6 with its evaluator as one shared library (the wheel `orion-v2-lattigo`, which the oracles use, has
keys, encoding and encryption but no evaluator). TenSEAL's wheel is SEAL 4 without HEXL, with one special prime only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

INT, LONG = ctypes.c_int, ctypes.c_ulong
ONE_STEP = 3
"""SEAL's Galois element of a rotation by one."""


class Chain(NamedTuple):
    """Bit sizes of a modulus chain."""

    log_n: int
    q_bits: tuple[int, ...]
    p_bits: tuple[int, ...]
    scale_bits: int


class _Bytes(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("size", LONG))


class _Floats(ctypes.Structure):
    _fields_ = (("data", ctypes.POINTER(ctypes.c_float)), ("size", LONG))


class Lattigo:
    """One scheme at a time, as the library has it. Single precision at its border, so errors are not compared here."""

    name = "Lattigo 6.2 (orion-fhe)"

    def __init__(self, chain: Chain) -> None:
        self.lib = ctypes.CDLL(str(_lattigo_path()))
        self.lib.GenerateAndSerializeRotationKey.restype = _Bytes
        self.lib.Decode.restype = _Floats
        self.lib.FreeCArray.argtypes = [ctypes.c_void_p]
        self.chain = chain
        self.n = 1 << chain.log_n
        hamming = self.n * 2 // 3
        arguments = [*_ints(chain.q_bits), *_ints(chain.p_bits)]
        self.lib.NewScheme(
            chain.log_n, *arguments, chain.scale_bits, hamming, b"standard", tempfile.gettempdir().encode(), b"none"
        )
        for step in ("NewKeyGenerator", "GenerateSecretKey", "GeneratePublicKey", "GenerateRelinearizationKey"):
            getattr(self.lib, step)()
        for step in ("GenerateEvaluationKeys", "NewEncoder", "NewEncryptor", "NewDecryptor", "NewEvaluator"):
            getattr(self.lib, step)()
        self.lib.NewLinearTransformEvaluator()
        self.lib.NewPolynomialEvaluator()
        self.level = len(chain.q_bits) - 1
        self._fresh = 1 + 2 * int(np.random.default_rng().integers(1, 1000))

    def encode(self, values: NDArray[np.float32]) -> int:
        """A plaintext's handle."""
        data = np.ascontiguousarray(values, dtype=np.float32)
        scale = LONG(1 << self.chain.scale_bits)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return int(self.lib.Encode(pointer, INT(data.size), INT(self.level), scale))

    def encrypt(self, plaintext: int) -> int:
        """A ciphertext's handle, under the public key: the library's only way."""
        return int(self.lib.Encrypt(plaintext))

    def decrypt(self, ciphertext: int) -> int:
        """A plaintext's handle."""
        return int(self.lib.Decrypt(ciphertext))

    def decode(self, plaintext: int) -> NDArray[np.float32]:
        """All slots."""
        out = self.lib.Decode(plaintext)
        values = np.ctypeslib.as_array(out.data, shape=(out.size,)).copy()
        self.lib.FreeCArray(ctypes.cast(out.data, ctypes.c_void_p))
        return values

    def rotate(self, ciphertext: int, steps: int = 1) -> None:
        """RotateNew; the result is dropped."""
        self.lib.DeleteCiphertext(self.lib.RotateNew(ciphertext, steps))

    def multiply(self, x: int, y: int) -> None:
        """MulRelinNew; the result is dropped."""
        self.lib.DeleteCiphertext(self.lib.MulRelinCiphertextNew(x, y))

    def product(self, x: int, y: int) -> int:
        """The handle of a product, to be rescaled."""
        return int(self.lib.MulRelinCiphertextNew(x, y))

    def rescale(self, ciphertext: int) -> None:
        """In place."""
        self.lib.Rescale(ciphertext)

    def delete(self, ciphertext: int) -> None:
        """Forget a ciphertext."""
        self.lib.DeleteCiphertext(ciphertext)

    def new_rotation_key(self) -> None:
        """Generate a rotation key that was not there before."""
        self._fresh += 2
        self.lib.AddRotationKey(self._fresh)

    def rotation_key_bytes(self) -> int:
        """Of one marshalled key."""
        out = self.lib.GenerateAndSerializeRotationKey(5)
        self.lib.FreeCArray(out.data)
        return int(out.size)

    def linear_transform(self, diagonals: dict[int, NDArray[np.float64]]) -> int:
        """Encoded diagonals with their keys; BSGS of ratio 1, the library's usual."""
        indices = sorted(diagonals)
        flat = np.concatenate([diagonals[i] for i in indices]).astype(np.float32)
        pointer = flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        ratio = ctypes.c_float(2.0)
        made = int(
            self.lib.GenerateLinearTransform(*_ints(indices), pointer, INT(flat.size), self.level, ratio, b"none")
        )
        self.lib.GetLinearTransformRotationKeys.restype = _Bytes
        keys = self.lib.GetLinearTransformRotationKeys(made)
        elements = np.ctypeslib.as_array(ctypes.cast(keys.data, ctypes.POINTER(INT)), shape=(keys.size,)).copy()
        self.transform_keys = len(elements)
        for element in elements:
            self.lib.GenerateLinearTransformRotationKey(int(element))
        return made

    def apply(self, transform: int, ciphertext: int) -> None:
        """The matrix–vector product, not rescaled; the result is dropped."""
        self.lib.DeleteCiphertext(self.lib.EvaluateLinearTransform(transform, ciphertext))

    def chebyshev(self, coefficients: Sequence[float]) -> int:
        """A polynomial's handle."""
        data = np.asarray(coefficients, dtype=np.float32)
        pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return int(self.lib.GenerateChebyshev(pointer, INT(data.size)))

    def evaluate(self, polynomial: int, ciphertext: int) -> None:
        """The polynomial at a ciphertext; the result is dropped."""
        scale = LONG(1 << self.chain.scale_bits)
        self.lib.DeleteCiphertext(self.lib.EvaluatePolynomial(ciphertext, polynomial, scale))

    def close(self) -> None:
        """Give the memory back to Go."""
        self.lib.DeleteScheme()


def _ints(values: Sequence[int]) -> tuple[Any, ctypes.c_int]:
    return (INT * len(values))(*values), INT(len(values))


def _lattigo_path() -> Path:
    spec = importlib.util.find_spec("orion")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "backend" / "lattigo" / "lattigo-linux.so"
        if path.exists():
            return path
    raise ImportError("the wheel orion-fhe is not installed (pip install --no-deps orion-fhe)")


class Seal:
    """SEAL with the same q primes' sizes and one special prime."""

    name = "SEAL 4 (tenseal)"

    def __init__(self, chain: Chain) -> None:
        import tenseal.sealapi as seal

        self.seal = seal
        self.chain = chain
        bits = [*chain.q_bits, chain.p_bits[0]]
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(1 << chain.log_n)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(1 << chain.log_n, bits))
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)
        if not self.context.parameters_set():
            raise ValueError(f"SEAL refuses these parameters: {self.context.parameters_error_message()}")
        self.generator = seal.KeyGenerator(self.context)
        self.secret = self.generator.secret_key()
        self.encryptor = seal.Encryptor(self.context, self.secret)
        self.decryptor = seal.Decryptor(self.context, self.secret)
        self.encoder = seal.CKKSEncoder(self.context)
        self.evaluator = seal.Evaluator(self.context)
        self.galois, self.relin = seal.GaloisKeys(), seal.RelinKeys()
        self.generator.create_galois_keys([ONE_STEP], self.galois)
        self.generator.create_relin_keys(self.relin)

    def encode(self, values: list[float]) -> Any:
        """A plaintext at the top level."""
        out = self.seal.Plaintext()
        self.encoder.encode(values, float(1 << self.chain.scale_bits), out)
        return out

    def encrypt(self, plaintext: Any) -> Any:
        """Under the secret key."""
        out = self.seal.Ciphertext()
        self.encryptor.encrypt_symmetric(plaintext, out)
        return out

    def decrypt(self, ciphertext: Any) -> Any:
        """A plaintext."""
        out = self.seal.Plaintext()
        self.decryptor.decrypt(ciphertext, out)
        return out

    def rotate(self, ciphertext: Any) -> Any:
        """Left by one."""
        out = self.seal.Ciphertext()
        self.evaluator.rotate_vector(ciphertext, 1, self.galois, out)
        return out

    def multiply(self, x: Any, y: Any) -> Any:
        """Multiplied and relinearised."""
        out = self.seal.Ciphertext()
        self.evaluator.multiply(x, y, out)
        self.evaluator.relinearize_inplace(out, self.relin)
        return out

    def rescale(self, x: Any) -> Any:
        """One prime fewer."""
        out = self.seal.Ciphertext()
        self.evaluator.rescale_to_next(x, out)
        return out

    def new_rotation_key(self) -> None:
        """Generate one."""
        self.generator.create_galois_keys([ONE_STEP], self.seal.GaloisKeys())

    def rotation_key_bytes(self) -> int:
        """Of one key as saved by SEAL (seeded, compressed by its default)."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            self.generator.create_galois_keys([ONE_STEP]).save(path)
            return os.path.getsize(path)


def available(make: Callable[[Chain], Any], chain: Chain) -> tuple[Any, str]:
    """The peer, or None and why not."""
    try:
        return make(chain), ""
    except (ImportError, OSError, ValueError, RuntimeError) as fault:
        return None, f"{getattr(make, 'name', make)}: {fault}"
