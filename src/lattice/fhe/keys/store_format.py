"""A secret key at rest: only ever encrypted, under a passphrase or under a key that an OS keyring keeps.

A frame of kind SECRET_KEY (`serialise.frame`). The header names the parameters in full, so that the key can be used
without anything else; the body is a 12-byte nonce and AES-256-GCM of the polynomial, two bits a coefficient (value +
1, coefficient 0 in the lowest bits of the first byte), with the header as associated data. The wrapping key is
scrypt's (RFC 7914) from the passphrase and a 16-byte salt, N = 2^17, r = 8, p = 1 (128 MiB, about 0.3 s), or 32 bytes
handed in. Opening refuses costs above 2^18, so that a stranger's file cannot eat all memory. Where the bytes are kept
is `client`'s business.
"""

from __future__ import annotations

import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from lattice.core.errors import LatticeError
from lattice.fhe.keys.sampling import SecretBytes, secret_bytes, wipe
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.keys.secret_memory import secret_memory
from lattice.fhe.serialise.frame import Kind, expect_body, invalid, read_frame, write_frame
from lattice.fhe.serialise.parameters import ParametersHeader, from_header, header_of

LOG_COST = 17
MAX_LOG_COST = 18
MIN_LOG_COST = 14
SALT_BYTES, NONCE_BYTES, TAG_BYTES, KEY_BYTES = 16, 12, 16, 32


class SecretHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Public facts; authenticated. `log_cost` 0 and no salt: the wrapping key was handed in."""

    key_id: str
    log_cost: int
    salt: str
    params: ParametersHeader


def seal_with_passphrase(secret: SecretKey, passphrase: str, *, log_cost: int = LOG_COST) -> bytes:
    """Encrypt under a passphrase."""
    if not passphrase:
        raise LatticeError("secret_locked", "An empty passphrase protects nothing.")
    if not MIN_LOG_COST <= log_cost <= MAX_LOG_COST:
        raise LatticeError("secret_locked", f"The cost 2^{log_cost} is outside 2^{MIN_LOG_COST} … 2^{MAX_LOG_COST}.")
    salt = os.urandom(SALT_BYTES)
    header = SecretHeader(secret.key_id, log_cost, salt.hex(), header_of(secret.params))
    key = _stretch(passphrase, salt, log_cost)
    sealed = _seal(secret, header, key.data)
    wipe(key)
    return sealed


def seal_with_key(secret: SecretKey, wrapping_key: bytes) -> bytes:
    """Encrypt under 32 bytes from an OS keyring."""
    _check_key(wrapping_key)
    return _seal(secret, SecretHeader(secret.key_id, 0, "", header_of(secret.params)), memoryview(wrapping_key))


def open_with_passphrase(data: bytes | memoryview, passphrase: str) -> SecretKey:
    """Decrypt; `secret_locked` for a wrong passphrase, `blob_invalid` for damaged bytes."""
    header, body = read_frame(data, Kind.SECRET_KEY, SecretHeader)
    if not MIN_LOG_COST <= header.log_cost <= MAX_LOG_COST:
        raise invalid("The key was not sealed with a passphrase, or at a cost that is out of bounds.")
    try:
        salt = bytes.fromhex(header.salt)
    except ValueError:
        raise invalid("The salt is malformed.") from None
    if len(salt) != SALT_BYTES:
        raise invalid("The salt is malformed.")
    key = _stretch(passphrase, salt, header.log_cost)
    try:
        return _open(header, body, key.data)
    finally:
        wipe(key)


def open_with_key(data: bytes | memoryview, wrapping_key: bytes) -> SecretKey:
    """Decrypt with the key from the keyring."""
    _check_key(wrapping_key)
    header, body = read_frame(data, Kind.SECRET_KEY, SecretHeader)
    if header.log_cost or header.salt:
        raise invalid("The key was sealed with a passphrase.")
    return _open(header, body, memoryview(wrapping_key))


def _check_key(wrapping_key: bytes) -> None:
    if len(wrapping_key) != KEY_BYTES:
        raise LatticeError("secret_locked", f"A wrapping key has {KEY_BYTES} bytes, not {len(wrapping_key)}.")


def _stretch(passphrase: str, salt: bytes, log_cost: int) -> SecretBytes:
    key = secret_bytes(KEY_BYTES)
    Scrypt(salt=salt, length=KEY_BYTES, n=1 << log_cost, r=8, p=1).derive_into(passphrase.encode(), key.data)
    return key


def _seal(secret: SecretKey, header: SecretHeader, key: memoryview) -> bytes:
    plain = secret_bytes(secret.params.n // 4)
    secret.memory.pack_into(plain)
    nonce = os.urandom(NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, plain.data, msgspec.json.encode(header))
    wipe(plain)
    return write_frame(Kind.SECRET_KEY, header, nonce, sealed)


def _open(header: SecretHeader, body: memoryview, key: memoryview) -> SecretKey:
    params = from_header(header.params)
    size = params.n // 4
    expect_body(body, NONCE_BYTES + size + TAG_BYTES)
    plain, memory = secret_bytes(size), secret_memory(params.n)
    nonce, sealed = body[:NONCE_BYTES], body[NONCE_BYTES:]
    try:
        AESGCM(key).decrypt_into(nonce, sealed, msgspec.json.encode(header), plain.data)
    except InvalidTag:
        raise LatticeError("secret_locked", "The passphrase or the wrapping key is wrong.") from None
    try:
        memory.unpack(plain)
    except ValueError:
        raise invalid("The secret polynomial is not ternary.") from None
    finally:
        wipe(plain)
    return SecretKey(params, memory, header.key_id)
