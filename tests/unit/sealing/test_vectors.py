"""The committed vectors: today's code still makes them, opens the good ones and refuses the bad ones.

The reference, which is written from the specification alone, agrees.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing import pairing
from lattice.sealing.cipher import REPLY_LABEL, REQUEST_LABEL, derive_key
from lattice.sealing.envelope import Envelope, check_sender, open_request
from lattice.sealing.frames import ReplyOpener, ReplySealer
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import SignedKeyConfig, verify_key_config
from lattice.sealing.receipt import SignedReceipt, verify_receipt
from lattice.sealing.request import seal_body
from lattice.sealing.stream import RecordReader, RecordType, decode_error, decode_frame
from lattice.sealing.suites import Suite, WorkKeyPair, available_suites
from tests.unit.sealing import reference

FOLDER = Path(__file__).parents[3] / "spec" / "vectors"
needs_mlkem = pytest.mark.skipif(Suite.XWING not in available_suites(), reason="this build lacks ML-KEM")
Json = dict[str, Any]


@cache
def load(name: str) -> Json:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def rows(name: str, part: str) -> Any:
    entries = load(name)[part]
    supported = [e for e in entries if e.get("suite", Suite.X25519.value) in list(available_suites())]
    return [pytest.param(e, id=str(e.get("name") or e.get("suite") or i)) for i, e in enumerate(supported)]


@needs_mlkem
def test_the_generator_still_makes_the_committed_files() -> None:
    from spec.vectors.generate import build, load_stored

    for name, content in build(load_stored()).items():
        assert content == load(name), f"{name}.json differs: a byte layout changed"


@pytest.mark.parametrize("entry", rows("identity", "identities"))
def test_identities(entry: Json) -> None:
    key = IdentityKey.from_bytes(unb64url(entry["seed"]))
    message, signature = unb64url(entry["message"]), unb64url(entry["signature"])
    assert (key.public.text, key.public.key_id, key.public.words) == (entry["public"], entry["key_id"], entry["words"])
    assert key.sign(entry["label"].encode(), message) == signature
    reference.verify(key.public.raw, entry["label"], message, signature)
    assert reference.words(key.public.raw) == entry["words"]


@pytest.mark.parametrize("text", load("identity")["refused_public_keys"])
def test_refused_public_keys(text: str) -> None:
    with pytest.raises(LatticeError):
        PublicIdentity.from_text(text)


@pytest.mark.parametrize("entry", rows("key_config", "positive"))
def test_key_configs(entry: Json) -> None:
    file = load("key_config")
    signed = SignedKeyConfig.decode(unb64url(entry["encoded"]))
    config = verify_key_config(signed, PublicIdentity.from_text(file["identity"]), file["runtime"])
    pair = WorkKeyPair(Suite(entry["suite"]), unb64url(entry["seed"]))
    assert signed.config.decode() == entry["config"]
    assert WorkKeyPair.from_bytes(unb64url(entry["stored_private"])).public == pair.public
    assert (b64url(pair.public), pair.key_id) == (entry["public_key"], config.key_id)
    reference.verify(unb64url(file["identity"]), "lattice key config v1", signed.config, signed.signature)


@pytest.mark.parametrize("entry", rows("key_config", "negative"))
def test_refused_key_configs(entry: Json) -> None:
    file = load("key_config")
    with pytest.raises(LatticeError) as caught:
        verify_key_config(
            SignedKeyConfig.decode(unb64url(entry["encoded"])),
            PublicIdentity.from_text(file["identity"]),
            file["runtime"],
        )
    assert caught.value.code == entry["error"]


def work_key_pair(suite: str) -> WorkKeyPair:
    (seed,) = (row["seed"] for row in load("envelope")["work_keys"] if row["suite"] == suite)
    return WorkKeyPair(Suite(suite), unb64url(seed))


@pytest.mark.parametrize("entry", rows("envelope", "positive"))
def test_envelopes(entry: Json) -> None:
    file = load("envelope")
    envelope = Envelope.decode(unb64url(entry["encoded"]))
    check_sender(envelope, lambda sender: sender.text == file["sender"], file["now_ms"])
    opened = open_request(envelope, work_key_pair(entry["suite"]), file["runtime"])
    assert b64url(opened.body) == entry["body"]
    assert b64url(envelope.envelope_hash) == entry["envelope_hash"]
    work_key = unb64url(entry["work_key"])
    assert b64url(derive_key(work_key, envelope.header_hash, REQUEST_LABEL)) == entry["request_key"]
    assert [b64url(f) for f in seal_body(work_key, envelope.header_hash, opened.body)] == entry["frames"]


@pytest.mark.parametrize("entry", rows("envelope", "positive"))
def test_the_reference_opens_the_envelopes(entry: Json) -> None:
    parts = reference.split_envelope(unb64url(entry["encoded"]))
    sender = unb64url(json.loads(parts.header)["sender"])
    reference.verify(sender, "lattice sealed work v1", parts.envelope_hash, parts.signature)
    seed = work_key_pair(entry["suite"]).to_bytes()[2:]
    work_key = reference.hpke_open(entry["suite"], seed, parts.enc, parts.header, parts.wrapped_key)
    header_hash = hashlib.sha256(parts.header).digest()
    body = reference.open_request_frames(work_key, header_hash, parts.frames)
    assert (b64url(work_key), b64url(body)) == (entry["work_key"], entry["body"])
    assert reference.request_frames(work_key, header_hash, body) == parts.frames


@pytest.mark.parametrize("entry", rows("envelope", "negative"))
def test_refused_envelopes(entry: Json) -> None:
    file = load("envelope")
    pair, runtime = work_key_pair(Suite.X25519.value), entry.get("runtime", file["runtime"])
    allowed, now_ms = entry.get("allowed", file["sender"]), entry.get("now_ms", file["now_ms"])
    reached = []

    def receive() -> None:
        reached.append("decode")
        envelope = Envelope.decode(unb64url(entry["encoded"]))
        reached.append("check")
        check_sender(envelope, lambda sender: sender.text == allowed, now_ms)
        reached.append("open")
        open_request(envelope, pair, runtime)

    with pytest.raises(LatticeError) as caught:
        receive()
    assert (reached[-1], caught.value.code) == (entry["step"], entry["error"])


@pytest.mark.parametrize("entry", rows("request_frames", "cases"))
def test_request_frames(entry: Json) -> None:
    file = load("request_frames")
    work_key, header_hash = unb64url(file["work_key"]), unb64url(file["header_hash"])
    body = bytes(i % 251 for i in range(entry["body_length"]))
    for frames in (seal_body(work_key, header_hash, body), reference.request_frames(work_key, header_hash, body)):
        sums = [{"length": len(f), "sha256": b64url(hashlib.sha256(f).digest())} for f in frames]
        assert sums == entry["frames"]


def reply_rows(entry: Json) -> list[tuple[bytes, int, bool]]:
    return [(unb64url(row["frame"]), row["tokens"], row["final"]) for row in entry["frames"]]


@pytest.mark.parametrize("entry", rows("reply", "positive"))
def test_replies(entry: Json) -> None:
    file = load("reply")
    work_key, header_hash, salt = (unb64url(x) for x in (file["work_key"], file["header_hash"], entry["salt"]))
    opener = ReplyOpener(work_key, header_hash, entry["attempt"])
    opened = [opener.open(*row) for row in reply_rows(entry)]
    trailer = opened[-1].trailer
    assert trailer is not None
    assert [b64url(frame.payload) for frame in opened] == entry["payloads"]
    assert {"status": trailer.status, "finish_reason": trailer.finish_reason} == {
        k: entry["trailer"][k] for k in ("status", "finish_reason")
    }
    assert trailer.transcript_hash == entry["transcript_hash"]
    assert b64url(opener.ciphertext_hash) == entry["frames_hash"]
    assert b64url(derive_key(work_key, salt, REPLY_LABEL)) == entry["reply_key"]
    plain = reference.open_reply(work_key, header_hash, reply_rows(entry))
    assert plain[:-1] == [frame.payload for frame in opened[:-1]]
    assert plain[-1].endswith(opened[-1].payload)
    sealer = ReplySealer(work_key, header_hash, entry["attempt"], salt)
    for frame, (wire, tokens, final) in zip(opened, reply_rows(entry), strict=True):
        again = sealer.seal_final(frame.payload, trailer) if final else sealer.seal(frame.payload, tokens)
        assert again == wire


@pytest.mark.parametrize("entry", rows("reply", "negative"))
def test_refused_replies(entry: Json) -> None:
    file = load("reply")
    opener = ReplyOpener(unb64url(file["work_key"]), unb64url(file["header_hash"]), entry.get("attempt"))

    def receive() -> None:
        for row in reply_rows(entry):
            opener.open(*row)
        opener.require_finished()

    with pytest.raises(LatticeError) as caught:
        receive()
    assert caught.value.code == entry["error"]


def verify_entry(encoded: str) -> None:
    file = load("receipt")
    verify_receipt(
        SignedReceipt.decode(unb64url(encoded)),
        PublicIdentity.from_text(file["identity"]),
        envelope_hash=unb64url(file["envelope_hash"]),
        frames_hash=unb64url(file["frames_hash"]),
        attempt=file["attempt"],
    )


@pytest.mark.parametrize("entry", rows("receipt", "positive"))
def test_receipts(entry: Json) -> None:
    verify_entry(entry["encoded"])
    identity, signature = unb64url(load("receipt")["identity"]), unb64url(entry["signature"])
    reference.verify(identity, "lattice receipt v1", entry["receipt"].encode(), signature)
    assert unb64url(entry["encoded"]) == reference.lp(entry["receipt"].encode(), signature)


@pytest.mark.parametrize("entry", rows("receipt", "negative"))
def test_refused_receipts(entry: Json) -> None:
    with pytest.raises(LatticeError) as caught:
        verify_entry(entry["encoded"])
    assert caught.value.code == entry["error"]


def read_records(wire: bytes, size: int) -> list[Json]:
    reader, out = RecordReader(), []
    for at in range(0, len(wire), size):
        for record in reader.feed(wire[at : at + size]):
            row: Json = {"type": int(record.type)}
            if record.type is RecordType.FRAME:
                frame = decode_frame(record.payload)
                row |= {"tokens": frame.tokens, "final": frame.final, "frame": b64url(frame.frame)}
            elif record.type is RecordType.RECEIPT:
                row["payload"] = b64url(record.payload)
            elif record.type is RecordType.ERROR:
                row["code"] = decode_error(record.payload).code
            out.append(row)
    return out


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_records(size: int) -> None:
    for entry in load("stream")["positive"]:
        assert read_records(unb64url(entry["wire"]), size) == entry["records"]


@pytest.mark.parametrize("entry", rows("stream", "negative"))
def test_refused_records(entry: Json) -> None:
    with pytest.raises(LatticeError) as caught:
        read_records(unb64url(entry["wire"]), 1000)
    assert caught.value.code == entry["error"]


def test_pairing() -> None:
    file = load("pairing")
    raw = {name: unb64url(file[name]) for name in ("app_key", "identity_key", "key_config", "challenge", "token_hash")}
    common = {"origin": file["origin"], "runtime": file["runtime"]}
    keys = {"identity_key": raw["identity_key"], "key_config": raw["key_config"]}
    secret = file["secret"]
    assert b64url(pairing.app_key_mac(secret, **common, app_key=raw["app_key"])) == file["app_key_mac"]
    assert b64url(pairing.pairing_mac(secret, **common, **keys, app_key=raw["app_key"])) == file["pairing_mac"]
    assert b64url(pairing.pairing_mac(secret, **common, **keys, app_key=b"")) == file["pairing_mac_without_app_key"]
    message = pairing.redemption_proof_message(raw["challenge"], raw["token_hash"], raw["key_config"])
    assert b64url(message) == file["proof_message"]
    reference.verify(raw["identity_key"], "lattice redemption v1", message, unb64url(file["proof"]))
    bootstrap = file["bootstrap"]
    assert pairing.split_bootstrap(bootstrap["text"]) == (bootstrap["gateway_part"], bootstrap["secret"])
    for text in file["bootstrap_refused"]:
        with pytest.raises(LatticeError, match="bootstrap_token_invalid"):
            pairing.split_bootstrap(text)
