"""Vectors of replies: sealed frames and the records that carry them."""

from __future__ import annotations

import hashlib

from spec.vectors.fixed import (
    Json,
    fixed,
    flip,
)

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing import stream
from lattice.sealing.cipher import REPLY_LABEL, derive_key
from lattice.sealing.frames import ReplySealer
from lattice.sealing.trailer import Trailer


def reply_frames(sealer: ReplySealer, trailer: Trailer) -> list[Json]:
    """Two stream frames and a last one, with one event each."""
    rows = [{"frame": sealer.seal(b"data: one\n\n", 1), "tokens": 1, "final": False}]
    rows.append({"frame": sealer.seal(b"data: two\n\n", 2), "tokens": 2, "final": False})
    last = sealer.seal_final(b"", trailer)
    rows.append({"frame": last, "tokens": trailer.usage.completion_tokens, "final": True})
    return rows


def text_frames(rows: list[Json]) -> list[Json]:
    """Frames as JSON."""
    return [{**row, "frame": b64url(row["frame"])} for row in rows]


def replies() -> Json:
    """Frame sequences that open, and some that must raise `reply_invalid` at or before their end."""
    work_key, header_hash = fixed("reply work key"), fixed("reply header hash")
    salts = [fixed(f"reply salt {n}") for n in range(3)]
    trailer = Trailer(finish_reason="stop", usage=Usage(11, 3), model_digest="ab" * 32)
    sealer = ReplySealer(work_key, header_hash, 1, salts[0])
    one = reply_frames(sealer, trailer)
    two = reply_frames(ReplySealer(work_key, header_hash, 2, salts[1]), trailer)
    single = ReplySealer(work_key, header_hash, 1, salts[2])
    whole = single.seal_final(b'{"error":{}}', Trailer(status=400, usage=Usage(0, 0)))
    first, second, last = one
    aligned = {"frame": first["frame"][:36] + two[0]["frame"][36:], "tokens": 1, "final": False}
    negative: dict[str, list[Json]] = {
        "first frame replayed": [first, first],
        "second frame replayed": [first, second, second],
        "reordered": [second, first, last],
        "later frames swapped": [first, last, second],
        "frame left out": [first, last],
        "cut before the last frame": [first, second],
        "nothing came": [],
        "frame after the end": [first, second, last, last],
        "final flag on a frame that is not": [first, {**second, "final": True}],
        "final flag taken away": [first, second, {**last, "final": False}],
        "token count raised": [first, {**second, "tokens": 3}],
        "token count lowered": [{**first, "tokens": 0}],
        "token count of the last frame raised": [first, second, {**last, "tokens": 4}],
        "spliced from another attempt": [first, two[1], last],
        "attempt number altered": [{**first, "frame": flip(first["frame"], 3)}],
        "salt altered": [{**first, "frame": flip(first["frame"], 4)}],
        "ciphertext altered": [{**first, "frame": flip(first["frame"], 40)}],
        "tag altered": [{**first, "frame": flip(first["frame"], -1)}],
        "first ciphertext of another attempt": [aligned],
        "byte appended": [{**first, "frame": first["frame"] + b"\0"}],
        "frame cut short": [{**first, "frame": first["frame"][:51]}],
        "empty frame": [{**first, "frame": b""}],
        "token count out of range": [{**first, "tokens": 2**53}],
    }
    return {
        "work_key": b64url(work_key),
        "header_hash": b64url(header_hash),
        "positive": [
            {
                "name": "three frames",
                "attempt": 1,
                "salt": b64url(salts[0]),
                "reply_key": b64url(derive_key(work_key, salts[0], REPLY_LABEL)),
                "frames": text_frames(one),
                "payloads": [b64url(b"data: one\n\n"), b64url(b"data: two\n\n"), ""],
                "trailer": {"status": 200, "finish_reason": "stop", "prompt_tokens": 11, "completion_tokens": 3},
                "transcript_hash": b64url(hashlib.sha256(b"data: one\n\ndata: two\n\n").digest()),
                "frames_hash": b64url(sealer.ciphertext_hash),
            },
            {
                "name": "one frame, an engine's 400",
                "attempt": 1,
                "salt": b64url(salts[2]),
                "reply_key": b64url(derive_key(work_key, salts[2], REPLY_LABEL)),
                "frames": text_frames([{"frame": whole, "tokens": 0, "final": True}]),
                "payloads": [b64url(b'{"error":{}}')],
                "trailer": {"status": 400, "finish_reason": None, "prompt_tokens": 0, "completion_tokens": 0},
                "transcript_hash": b64url(hashlib.sha256(b'{"error":{}}').digest()),
                "frames_hash": b64url(single.ciphertext_hash),
            },
        ],
        "negative": [
            {"name": name, "frames": text_frames(rows), "error": "reply_invalid"} for name, rows in negative.items()
        ]
        + [
            {
                "name": "another attempt was asked for",
                "attempt": 2,
                "frames": text_frames(one),
                "error": "reply_invalid",
            }
        ],
    }


def records() -> Json:
    """A reply on the wire, and streams that must raise `reply_invalid`."""
    error = LatticeError("runtime_unreachable", "No daemon polls.")
    wire = (
        stream.encode_record(0)
        + stream.encode_frame(b"frame", 7, False)
        + stream.encode_frame(b"last", 9, True)
        + stream.encode_record(2, b"receipt")
        + stream.encode_error(error)
    )
    expected = [
        {"type": 0},
        {"type": 1, "tokens": 7, "final": False, "frame": b64url(b"frame")},
        {"type": 1, "tokens": 9, "final": True, "frame": b64url(b"last")},
        {"type": 2, "payload": b64url(b"receipt")},
        {"type": 3, "code": error.code},
    ]
    negative = {
        "unknown type": b"\x04" + bytes(4),
        "keepalive with a payload": b"\x00" + (1).to_bytes(4, "big") + b"x",
        "giant frame": b"\x01\xff\xff\xff\xff",
        "giant receipt": b"\x02" + (8193).to_bytes(4, "big"),
        "frame record too short": b"\x01" + (8).to_bytes(4, "big") + bytes(8),
        "final flag of 2": b"\x01" + (9).to_bytes(4, "big") + bytes(8) + b"\x02",
        "token count out of range": b"\x01" + (9).to_bytes(4, "big") + b"\xff" * 8 + b"\x00",
    }
    return {
        "positive": [{"wire": b64url(wire), "records": expected}],
        "negative": [{"name": k, "wire": b64url(v), "error": "reply_invalid"} for k, v in negative.items()],
    }
