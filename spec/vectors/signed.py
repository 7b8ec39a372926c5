"""Vectors of what is signed in the clear: identities, key configs, receipts and pairing."""

from __future__ import annotations

from spec.vectors.fixed import (
    MODEL,
    NOW_MS,
    RUNTIME,
    RUNTIME_KEY,
    SENDER_KEY,
    STRANGER_KEY,
    WORK_ID,
    Json,
    edit,
    fixed,
    flip,
    issued,
    signed_config,
)

from lattice.core.chat import Usage
from lattice.core.ids import b64url
from lattice.sealing import pairing
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KEY_CONFIG_LABEL
from lattice.sealing.receipt import RECEIPT_LABEL, Receipt, SignedReceipt, sign_receipt
from lattice.sealing.suites import Suite


def identities() -> Json:
    """Keys, ids, words, labelled signatures; public keys to refuse."""

    def entry(key: IdentityKey) -> Json:
        message = fixed("message", 40)
        return {
            "seed": b64url(key.to_bytes()),
            "public": key.public.text,
            "key_id": key.public.key_id,
            "words": key.public.words,
            "label": "lattice test v1",
            "message": b64url(message),
            "signature": b64url(key.sign(b"lattice test v1", message)),
        }

    eighth = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
    prime = 2**255 - 19
    points = [0, 1, prime - 1, prime, prime + 1, eighth, prime - eighth]
    small = [(y | sign << 255).to_bytes(32, "little") for y in points for sign in (0, 1)]
    return {
        "identities": [entry(key) for key in (RUNTIME_KEY, SENDER_KEY, STRANGER_KEY)],
        "refused_public_keys": [b64url(raw) for raw in small] + [b64url(bytes(31)), "A" * 42 + "B", "A" * 43 + "="],
    }


def key_configs() -> Json:
    """Signed key configs that verify, and some that must not."""
    positive = []
    for suite in Suite:
        for purpose in ("interactive", "durable"):
            signed, pair = issued(suite, purpose)
            positive.append(
                {
                    "suite": suite.value,
                    "seed": b64url(pair.to_bytes()[2:]),
                    "stored_private": b64url(pair.to_bytes()),
                    "public_key": b64url(pair.public),
                    "config": signed.config.decode(),
                    "signature": b64url(signed.signature),
                    "encoded": b64url(signed.encode()),
                }
            )
    signed, _ = issued(Suite.X25519)
    config, encoded = signed.config, signed.encode()
    other = issued(Suite.X25519, "durable")[1]
    day = 24 * 3_600_000
    negative = {
        "config altered": flip(encoded, 20),
        "signature altered": flip(encoded, -1),
        "signed by a stranger": signed_config(config, STRANGER_KEY),
        "signed under another label": signed_config(config, label=RECEIPT_LABEL),
        "for another runtime": signed_config(edit(config, runtime="lat_other")),
        "version 2": signed_config(edit(config, version=2)),
        "unknown member": signed_config(edit(config, extra=1)),
        "member missing": signed_config(edit(config, suite=...)),
        "unknown suite": signed_config(edit(config, suite="rot13")),
        "unknown purpose": signed_config(edit(config, purpose="eternal")),
        "key of another suite": signed_config(edit(config, suite=Suite.XWING.value)),
        "key id of another key": signed_config(edit(config, key_id=other.key_id)),
        "lives longer than its purpose allows": signed_config(edit(config, not_after_ms=NOW_MS + day + 1)),
        "ends before it begins": signed_config(edit(config, not_after_ms=NOW_MS)),
        "time as a string": signed_config(edit(config, not_before_ms=str(NOW_MS))),
        "trailing byte": encoded + b"\0",
        "cut short": encoded[:-1],
        "empty": b"",
        "giant length": b"\xff\xff\xff\xff" + encoded[4:],
        "not JSON": signed_config(b"{"),
    }
    return {
        "identity": RUNTIME_KEY.public.text,
        "runtime": RUNTIME,
        "positive": positive,
        "negative": [{"name": k, "encoded": b64url(v), "error": "envelope_invalid"} for k, v in negative.items()],
    }


def receipts() -> Json:
    """One receipt that verifies, and some that must not."""
    envelope_hash, frames_hash = fixed("envelope hash"), fixed("frames hash")
    receipt = Receipt(
        runtime=RUNTIME,
        work_id=WORK_ID,
        attempt=1,
        envelope_hash=b64url(envelope_hash),
        frames_hash=b64url(frames_hash),
        usage=Usage(11, 3),
        model=MODEL,
        model_digest="ab" * 32,
        finished_at_ms=NOW_MS + 1500,
    )
    signed = sign_receipt(RUNTIME_KEY, receipt)
    data, encoded = signed.receipt, signed.encode()

    def signed_as(content: bytes, key: IdentityKey = RUNTIME_KEY, label: bytes = RECEIPT_LABEL) -> bytes:
        return SignedReceipt(content, key.sign(label, content)).encode()

    negative = {
        "receipt altered": flip(encoded, 20),
        "signature altered": flip(encoded, -1),
        "signed by a stranger": signed_as(data, STRANGER_KEY),
        "signed under another label": signed_as(data, label=KEY_CONFIG_LABEL),
        "for other work": signed_as(edit(data, envelope_hash=b64url(fixed("x")))),
        "for another reply": signed_as(edit(data, frames_hash=b64url(fixed("x")))),
        "for another attempt": signed_as(edit(data, attempt=2)),
        "version 2": signed_as(edit(data, version=2)),
        "unknown member": signed_as(edit(data, extra=1)),
        "negative usage": signed_as(edit(data, usage={"prompt_tokens": -1, "completion_tokens": 3})),
        "usage out of range": signed_as(edit(data, usage={"prompt_tokens": 1, "completion_tokens": 2**53})),
        "hash not ASCII": signed_as(edit(data, frames_hash="\u00e9" * 43)),
        "trailing byte": encoded + b"\0",
        "cut short": encoded[:-1],
        "giant length": b"\xff\xff\xff\xff" + encoded[4:],
    }
    return {
        "identity": RUNTIME_KEY.public.text,
        "envelope_hash": b64url(envelope_hash),
        "frames_hash": b64url(frames_hash),
        "attempt": 1,
        "positive": [
            {"receipt": data.decode(), "signature": b64url(signed.signature), "encoded": b64url(encoded)},
        ],
        "negative": [{"name": k, "encoded": b64url(v), "error": "receipt_invalid"} for k, v in negative.items()],
    }


def pairings() -> Json:
    """The two HMACs, the redemption proof and bootstrap strings."""
    secret, origin = b64url(fixed("pairing secret")), "https://gateway.example"
    app_key, identity_key = SENDER_KEY.public.raw, RUNTIME_KEY.public.raw
    key_config = issued(Suite.X25519)[0].encode()
    challenge, token_hash = fixed("challenge"), fixed("token hash")
    proof = pairing.redemption_proof_message(challenge, token_hash, key_config)
    gateway_part = "lbt_" + b64url(fixed("bootstrap"))
    common = {"origin": origin, "runtime": RUNTIME}
    return {
        "secret": secret,
        **common,
        "app_key": b64url(app_key),
        "identity_key": b64url(identity_key),
        "key_config": b64url(key_config),
        "app_key_mac": b64url(pairing.app_key_mac(secret, **common, app_key=app_key)),
        "pairing_mac": b64url(
            pairing.pairing_mac(secret, **common, identity_key=identity_key, key_config=key_config, app_key=app_key)
        ),
        "pairing_mac_without_app_key": b64url(
            pairing.pairing_mac(secret, **common, identity_key=identity_key, key_config=key_config, app_key=b"")
        ),
        "challenge": b64url(challenge),
        "token_hash": b64url(token_hash),
        "proof_message": b64url(proof),
        "proof": b64url(RUNTIME_KEY.sign(pairing.REDEMPTION_LABEL, proof)),
        "bootstrap": {"text": f"{gateway_part}.{secret}", "gateway_part": gateway_part, "secret": secret},
        "bootstrap_refused": [
            "",
            "lbt_",
            secret,
            f"{gateway_part}.",
            f"{gateway_part}.{secret[:-1]}",
            f"{gateway_part}.{secret}.{secret}",
            f"{gateway_part} .{secret}",
        ],
    }
