"""A second reading of `spec/sealed-work.md`, from the text alone: shares no code with `lattice.sealing`.

Slow and without limits; it exists to open and remake the vectors. HPKE and X-Wing are written out too, so that the
library's HPKE is checked against RFC 9180 and the X-Wing draft rather than against itself.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def lp(*fields: bytes) -> bytes:
    return b"".join(u32(len(field)) + field for field in fields)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(salt: bytes, ikm: bytes, info: bytes) -> bytes:
    return hmac.digest(hmac.digest(salt, ikm, "sha256"), info + b"\x01", "sha256")


def verify(public: bytes, label: str, message: bytes, signature: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, label.encode() + b"\x00" + message)


def words(public: bytes) -> str:
    bits = int.from_bytes(sha256(b"lattice fingerprint v1\x00" + public)[:12], "big")
    out = []
    for shift in range(80, -1, -16):
        rest, word = bits >> shift & 0xFFFF, ""
        for size, letters in ((4, "bdfghjklmnprstvz"), (2, "aiou")) * 2 + ((4, "bdfghjklmnprstvz"),):
            word += letters[rest >> 16 - size & (1 << size) - 1]
            rest = rest << size & 0xFFFF
        out.append(word)
    return "-".join(out)


# --- RFC 9180 and X-Wing -----------------------------------------------------------------------------------


def xwing_private(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def xwing_public(seed: bytes) -> bytes:
    lattice, curve = xwing_private(seed)
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def xwing_decapsulate(seed: bytes, enc: bytes) -> bytes:
    lattice, curve = xwing_private(seed)
    ss_m = lattice.decapsulate(enc[:1088])
    ss_x = curve.exchange(X25519PublicKey.from_public_bytes(enc[1088:]))
    own = curve.public_key().public_bytes_raw()
    return hashlib.sha3_256(ss_m + ss_x + enc[1088:] + own + b"\\.//^\\").digest()


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite_id + label + ikm, "sha256")


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    text = size.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    return hmac.digest(prk, text + b"\x01", "sha256")[:size]


def x25519_decapsulate(seed: bytes, enc: bytes) -> bytes:
    own = X25519PrivateKey.from_private_bytes(seed)
    shared = own.exchange(X25519PublicKey.from_public_bytes(enc))
    suite_id = b"KEM\x00\x20"
    prk = labeled_extract(suite_id, b"", b"eae_prk", shared)
    return labeled_expand(suite_id, prk, b"shared_secret", enc + own.public_key().public_bytes_raw(), 32)


def hpke_open(suite: str, seed: bytes, enc: bytes, info: bytes, ciphertext: bytes) -> bytes:
    xwing = suite.startswith("xwing")
    secret = xwing_decapsulate(seed, enc) if xwing else x25519_decapsulate(seed, enc)
    suite_id = b"HPKE" + (b"\x64\x7a" if xwing else b"\x00\x20") + b"\x00\x01" + b"\x00\x02"
    context = b"\x00" + labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    context += labeled_extract(suite_id, b"", b"info_hash", info)
    prk = labeled_extract(suite_id, secret, b"secret", b"")
    key = labeled_expand(suite_id, prk, b"key", context, 32)
    nonce = labeled_expand(suite_id, prk, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


# --- envelopes and replies ---------------------------------------------------------------------------------


class Parts(NamedTuple):
    header: bytes
    enc: bytes
    wrapped_key: bytes
    frames: list[bytes]
    signature: bytes
    envelope_hash: bytes


def split_envelope(data: bytes) -> Parts:
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return int.from_bytes(data[at - 4 : at], "big")

    def field() -> bytes:
        nonlocal at
        size = number()
        at += size
        return data[at - size : at]

    header, enc, wrapped_key = field(), field(), field()
    frames = [field() for _ in range(number())]
    unsigned = data[:at]
    signature = field()
    assert at == len(data)
    return Parts(header, enc, wrapped_key, frames, signature, sha256(unsigned))


def nonce(index: int, final: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([final])


def request_frames(work_key: bytes, header_hash: bytes, body: bytes) -> list[bytes]:
    label = b"lattice sealed request v1"
    cipher = AESGCM(hkdf(header_hash, work_key, label))
    pieces = [body[at : at + 1_048_576] for at in range(0, len(body), 1_048_576)] or [b""]
    last = len(pieces) - 1
    return [cipher.encrypt(nonce(i, i == last), p, label + b"\x00" + header_hash) for i, p in enumerate(pieces)]


def open_request_frames(work_key: bytes, header_hash: bytes, frames: list[bytes]) -> bytes:
    label = b"lattice sealed request v1"
    cipher = AESGCM(hkdf(header_hash, work_key, label))
    last = len(frames) - 1
    return b"".join(cipher.decrypt(nonce(i, i == last), f, label + b"\x00" + header_hash) for i, f in enumerate(frames))


def open_reply(work_key: bytes, header_hash: bytes, frames: list[tuple[bytes, int, bool]]) -> list[bytes]:
    label = b"lattice sealed reply v1"
    attempt, salt = frames[0][0][:4], frames[0][0][4:36]
    cipher = AESGCM(hkdf(salt, work_key, label))
    out = []
    for i, (frame, tokens, final) in enumerate(frames):
        aad = label + b"\x00" + header_hash + attempt + tokens.to_bytes(8, "big")
        out.append(cipher.decrypt(nonce(i, final), frame[36:] if i == 0 else frame, aad))
    return out
