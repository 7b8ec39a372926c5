"""A server computes a dot product without seeing the vector: `python examples/encrypted_dot_product.py`.

The client owns the secret key, the server owns the weights. What travels, both ways, is bytes.
"""

import numpy as np

from lattice.fhe.circuits.evaluator import Evaluator
from lattice.fhe.circuits.rotations import mask
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import parameters
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, decode_seeded_ciphertext, encode_ciphertext
from lattice.fhe.serialise.keys import decode_evaluation_keys, encode_evaluation_keys

params = parameters(log_n=13, base_bits=50, level_bits=[36, 36], special_bits=[50], scale_bits=36)
COUNT = 64


def client_asks(vector: np.ndarray) -> tuple[bytes, bytes, Decryptor]:
    """Keys and question for the server; the decryptor, with the secret, stays here."""
    generator = KeyGenerator(params)
    secret = generator.secret_key()
    keys = generator.evaluation_keys(secret, rotations={1 << bit: params.max_level - 1 for bit in range(6)})
    question = SecretKeyEncryptor(secret).encrypt(Encoder(params).encode(vector))
    return encode_evaluation_keys(keys), encode_ciphertext(question, params), Decryptor(secret)


def server_answers(keys: bytes, question: bytes, weights: np.ndarray) -> bytes:
    """Multiply, add up, and leave nothing but the answer in the slots."""
    evaluator = Evaluator(params, decode_evaluation_keys(keys, params))
    x = decode_seeded_ciphertext(question, params).expand(params)
    products = evaluator.rescale(evaluator.multiply_plain(x, weights))
    total = evaluator.sum_slots(products, COUNT)
    answer = evaluator.rescale(evaluator.multiply_plain(total, mask(params.slots, 1)))
    return encode_ciphertext(answer, params)


def main() -> None:
    """Both sides in one process."""
    rng = np.random.default_rng()
    vector, weights = rng.uniform(-1, 1, COUNT), rng.uniform(-1, 1, COUNT)
    keys, question, decryptor = client_asks(vector)
    answer = server_answers(keys, question, weights)
    value = decryptor.real_values(decode_ciphertext(answer, params), 1)[0]
    print(f"encrypted {value:+.6f}, in the clear {vector @ weights:+.6f}")
    print(f"keys {len(keys) / 1e6:.1f} MB, question {len(question) / 1e3:.0f} KB, answer {len(answer) / 1e3:.0f} KB")


if __name__ == "__main__":
    main()
