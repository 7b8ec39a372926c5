"""Chat that is sealed end to end: what comes back, what goes out, and everything that must be refused."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import msgspec
import pytest

from lattice.core.chat import Usage
from lattice.core.clock import HOUR_MS
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.envelope import Envelope
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import issue_key_config
from lattice.sealing.stream import RecordType, encode_error, encode_record
from lattice.sealing.suites import Suite
from tests.unit.client.conftest import Sdk
from tests.unit.client.played import PlayedDaemon, PlayedGateway, answered, chunk, fault, refused, sse

ASK = [{"role": "user", "content": "the canary prompt"}]
CHAT = "POST /chat/completions"


def model_of(daemon: PlayedDaemon) -> str:
    return f"lattice:personal:{daemon.runtime_id}"


def test_an_answer_carries_text_provenance_and_a_verified_receipt(sdk: Sdk, daemon: PlayedDaemon) -> None:
    result = sdk.chat_complete_for_personal_runtime(daemon.runtime_id, ASK, temperature=0.2)
    assert result.text == "one two three"
    assert (result.sealing, result.runtime, result.request_id) == ("end_to_end", daemon.runtime_id, "req_1")
    assert result.work_id == daemon.headers[0].work_id
    assert result.usage == Usage(5, 3)
    assert result.receipt.verified is True
    assert result.receipt.receipt.work_id == result.work_id
    assert result.finish_reason == "stop"
    assert daemon.seen == [{"model": model_of(daemon), "messages": ASK, "temperature": 0.2}]


def test_a_personal_model_is_sealed_without_being_asked(sdk: Sdk, daemon: PlayedDaemon) -> None:
    assert sdk.chat_complete(model_of(daemon), ASK).sealing == "end_to_end"


def test_the_gateway_never_sees_the_prompt_nor_the_answer(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    sdk.chat_complete(model_of(daemon), ASK)
    sent = gateway.requests[-1]
    assert b"canary" not in sent.content
    assert b"canary" not in b"".join(sent.headers.raw[0])
    assert not any(b"one two" in piece for piece in gateway.bodies[0].pieces if isinstance(piece, bytes))


def test_the_header_carries_the_callers_ceiling_or_the_models_default(sdk: Sdk, daemon: PlayedDaemon) -> None:
    sdk.chat_complete(model_of(daemon), ASK, max_tokens=9)
    sdk.chat_complete(model_of(daemon), ASK, max_completion_tokens=8)
    sdk.chat_complete(model_of(daemon), ASK)
    sdk.chat_complete(model_of(daemon) + ":other", ASK)
    assert [h.max_output_tokens for h in daemon.headers] == [9, 8, 77, 1024]
    assert [h.task for h in daemon.headers] == ["chat"] * 4


def test_a_stream_yields_deltas_and_ends_with_a_receipt(sdk: Sdk, daemon: PlayedDaemon) -> None:
    stream, deltas = sdk.chat_stream_for_personal_runtime(daemon.runtime_id, ASK)
    assert [d.text for d in deltas] == ["", "one", " two", " three", ""]
    assert stream.text == "one two three"
    assert stream.finished
    assert (stream.sealing, stream.runtime, stream.usage) == ("end_to_end", daemon.runtime_id, Usage(5, 3))
    assert stream.receipt.verified
    assert deltas[-1].finish_reason == "stop"
    assert daemon.seen[0]["stream"] is True
    assert daemon.headers[0].stream is True


def test_embeddings_are_sealed_too(sdk: Sdk, daemon: PlayedDaemon) -> None:
    result = sdk.embeddings(model_of(daemon), ["a"])
    assert result.vectors == [[0.5, -0.25]]
    assert result.receipt.verified
    assert daemon.headers[0].task == "embeddings"


def test_tools_pass_through_unchanged_in_both_directions(sdk: Sdk, daemon: PlayedDaemon) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x-new": [1]}}}]
    history = [*ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1"}]
    answer = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    daemon.reply = lambda body: (200, [json.dumps(answer).encode()])
    result = sdk.chat_complete(model_of(daemon), history, tools=tools, something_unknown={"kept": True})
    assert daemon.seen[0]["tools"] == tools
    assert daemon.seen[0]["messages"] == history
    assert daemon.seen[0]["something_unknown"] == {"kept": True}
    assert result.tool_calls == [call]
    assert result.text == ""


def test_a_second_request_needs_no_second_lookup(sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway) -> None:
    lookup = f"GET /personal-runtimes/{daemon.runtime_id}"
    sdk.chat_complete(model_of(daemon), ASK)
    assert gateway.counted() == {lookup: 1, CHAT: 1}


# --- what must be refused ----------------------------------------------------------------------------------


def tampered(kind: str, records: list[bytes]) -> list[bytes]:
    keepalive, *frames, receipt = records
    flipped = bytearray(frames[-1])
    flipped[-1] ^= 1
    return {
        "dropped frame": [keepalive, frames[0], *frames[2:], receipt],
        "reordered frames": [keepalive, frames[1], frames[0], *frames[2:], receipt],
        "replayed frame": [keepalive, frames[0], frames[0], *frames[1:], receipt],
        "flipped bit": [keepalive, *frames[:-1], bytes(flipped), receipt],
        "no final frame": [keepalive, *frames[:-1]],
        "frame after the receipt": [*records, frames[0]],
        "cut in a record": [*frames, receipt, receipt[:9]],
        "unknown record": [keepalive, b"\x09\x00\x00\x00\x00", *frames, receipt],
        "nothing at all": [],
    }[kind]


TAMPERING = [
    "dropped frame",
    "reordered frames",
    "replayed frame",
    "flipped bit",
    "no final frame",
    "frame after the receipt",
    "cut in a record",
    "unknown record",
    "nothing at all",
]


@pytest.mark.parametrize("kind", TAMPERING)
def test_a_tampered_stream_is_never_complete(sdk: Sdk, daemon: PlayedDaemon, kind: str) -> None:
    daemon.mangle = lambda records: tampered(kind, records)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_stream(model_of(daemon), ASK)
    assert caught.value.code == "reply_invalid"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"usage": Usage(5, 2)}, "usage"),
        ({"status": 201}, "usage"),
        ({"model_digest": "00"}, "model"),
        ({"attempt": 2}, "attempt"),
        ({"envelope_hash": b64url(bytes(32))}, "other work"),
        ({"frames_hash": b64url(bytes(32))}, "another reply"),
        ({"work_id": "work_other"}, "other work"),
        ({"runtime": "lat_other"}, "other work"),
    ],
)
def test_a_receipt_that_differs_is_refused(
    sdk: Sdk, daemon: PlayedDaemon, changes: dict[str, Any], reason: str
) -> None:
    daemon.receipt_changes = changes
    with pytest.raises(LatticeError, match=reason) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "receipt_invalid"


def test_a_receipt_of_another_signer_is_refused(sdk: Sdk, daemon: PlayedDaemon) -> None:
    daemon.receipt_signer = IdentityKey.generate()
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "receipt_invalid"


def test_a_missing_receipt_is_refused(sdk: Sdk, daemon: PlayedDaemon) -> None:
    daemon.mangle = lambda records: records[:-1]
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "receipt_invalid"


def test_a_reply_of_other_work_does_not_open(sdk: Sdk, daemon: PlayedDaemon) -> None:
    kept: list[list[bytes]] = []
    daemon.mangle = lambda records: kept.append(records) or kept[0]  # type: ignore[func-returns-value]
    sdk.chat_complete(model_of(daemon), ASK)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "reply_invalid"


def test_a_plain_answer_to_sealed_work_is_a_downgrade(sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway) -> None:
    gateway.sealed_headers = {"content-type": "application/json"}
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "sealing_mode_unavailable"


def test_an_answer_that_reports_a_lesser_mode_is_a_downgrade(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    gateway.sealed_headers = {"x-lattice-sealing": "gateway"}
    with pytest.raises(LatticeError) as caught:
        sdk.chat_stream(model_of(daemon), ASK)
    assert caught.value.code == "sealing_mode_unavailable"


def test_hosted_models_cannot_be_sealed_end_to_end_and_nothing_is_sent(sdk: Sdk, gateway: PlayedGateway) -> None:
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete("lattice:tiny", ASK, sealing="end_to_end")
    assert caught.value.code == "sealing_mode_unavailable"
    assert not gateway.requests


def test_a_sender_that_the_machine_does_not_know_is_told_so(sdk: Sdk, daemon: PlayedDaemon) -> None:
    daemon.allowed.clear()
    daemon.allowed.add(IdentityKey.generate().public)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "sender_not_allowed"


# --- errors that come back sealed, or in the middle --------------------------------------------------------


def test_an_engines_refusal_is_an_error_whose_text_has_no_prompt(sdk: Sdk, daemon: PlayedDaemon) -> None:
    refusal = {"error": {"message": "too long: the canary prompt", "type": "exceed_context_size_error", "code": 400}}
    daemon.reply = lambda body: (400, [json.dumps(refusal).encode()])
    for call in (sdk.chat_complete, sdk.chat_stream):
        with pytest.raises(LatticeError) as caught:
            call(model_of(daemon), ASK)
        assert caught.value.code == "invalid_request"
        assert "400 (exceed_context_size_error)" in str(caught.value)
        assert "canary" not in str(caught.value)
        assert caught.value.details["engine_message"].startswith("too long")


def test_an_error_record_in_mid_stream_is_raised_after_what_came_before(sdk: Sdk, daemon: PlayedDaemon) -> None:
    error = encode_error(LatticeError("runtime_failed", "the engine died"))
    daemon.mangle = lambda records: [*records[:3], error]
    with pytest.raises(LatticeError, match="the engine died") as caught:
        sdk.chat_stream(model_of(daemon), ASK)
    assert caught.value.code == "runtime_failed"


def test_an_engine_error_event_in_mid_stream_is_raised(sdk: Sdk, daemon: PlayedDaemon) -> None:
    events = [sse(chunk("m", {"content": "x"})), sse({"error": {"message": "oom", "type": "server_error"}}), b""]
    daemon.reply = lambda body: (200, events)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_stream(model_of(daemon), ASK)
    assert caught.value.code == "runtime_failed"


def test_a_connection_that_breaks_in_mid_stream_is_not_sent_again(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    daemon.mangle = lambda records: records[:3]
    gateway.tail = [httpx2.ReadError("reset")]
    with pytest.raises(LatticeError, match="middle of the answer"):
        sdk.chat_stream(model_of(daemon), ASK)
    assert gateway.counted()[CHAT] == 1
    assert gateway.bodies[0].closed


# --- the work key runs out ---------------------------------------------------------------------------------


def test_an_expired_work_key_is_renewed_once_under_a_new_work_id(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    fetched = gateway.record(daemon)
    daemon.roll()
    gateway.overrides = {"key_config": fetched["key_config"]}  # the gateway still shows the old one
    result = sdk.chat_complete(model_of(daemon), ASK)
    assert result.text == "one two three"
    sent = [Envelope.decode(r.content) for r in gateway.requests if r.method == "POST"]
    assert len(sent) == 2
    assert sent[0].parsed.work_id != sent[1].parsed.work_id
    assert result.work_id == sent[1].parsed.work_id
    assert gateway.counted()[f"GET /personal-runtimes/{daemon.runtime_id}"] == 1


def test_the_renewal_may_also_arrive_as_an_error_record(sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway) -> None:
    error = LatticeError("work_key_expired", details={"key_config": b64url(daemon.config.encode())})
    answers = [[encode_record(RecordType.KEEPALIVE), encode_error(error)]]
    daemon.mangle = lambda records: answers.pop() if answers else records
    stream, _ = sdk.chat_stream(model_of(daemon), ASK)
    assert stream.text == "one two three"
    assert gateway.counted()[CHAT] == 2
    assert gateway.bodies[0].closed


def test_a_second_expiry_is_given_up(sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway) -> None:
    error = LatticeError("work_key_expired", details={"key_config": b64url(daemon.config.encode())})
    daemon.mangle = lambda records: [encode_error(error)]
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "work_key_expired"
    assert gateway.counted()[CHAT] == 2


def test_a_renewal_that_the_pinned_identity_did_not_sign_is_an_identity_change(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway, clock: Any
) -> None:
    forged, _ = issue_key_config(IdentityKey.generate(), daemon.runtime_id, "interactive", Suite.X25519, clock.now_ms())
    error = LatticeError("work_key_expired", details={"key_config": b64url(forged.encode())})
    daemon.mangle = lambda records: [encode_error(error)]
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "runtime_identity_changed"
    assert gateway.counted()[CHAT] == 1


def test_a_machine_asleep_for_25_hours_works_again_once_it_has_a_new_key(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway, clock: Any
) -> None:
    clock.advance(25 * HOUR_MS)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "work_key_expired"
    assert gateway.counted()[CHAT] == 0
    daemon.roll()
    assert sdk.chat_complete(model_of(daemon), ASK).text == "one two three"


# --- sending again -----------------------------------------------------------------------------------------


def test_a_dropped_connection_resends_identical_sealed_bytes(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    sdk.get_personal_runtime(daemon.runtime_id)
    gateway.faults.extend([lambda r: None, fault(httpx2.RemoteProtocolError("gone"))])
    assert sdk.chat_complete(model_of(daemon), ASK).text == "one two three"
    sent = [r.content for r in gateway.requests if r.method == "POST"]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert len(sdk.pauses) == 1


def test_a_full_queue_is_waited_for_and_the_same_bytes_are_sent(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    full = refused(LatticeError("queue_full", retry_after_ms=2000))
    gateway.faults.extend([lambda r: None, lambda r: full])
    assert sdk.chat_complete(model_of(daemon), ASK).text == "one two three"
    sent = [r.content for r in gateway.requests if r.method == "POST"]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert 2.0 <= sdk.pauses[0] < 3.0


@pytest.mark.parametrize("code", ["runtime_unreachable", "credits_exhausted", "reply_invalid", "envelope_expired"])
def test_what_the_catalogue_calls_final_is_sent_once(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway, code: str
) -> None:
    gateway.faults.extend([lambda r: None, fault(LatticeError(code))])
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == code
    assert gateway.counted()[CHAT] == 1


def test_no_repr_shows_a_prompt_an_answer_or_a_key(sdk: Sdk, daemon: PlayedDaemon) -> None:
    result = sdk.chat_complete(model_of(daemon), ASK)
    stream, deltas = sdk.chat_stream(model_of(daemon), ASK)
    shown = repr([result, stream, deltas, sdk.store, result.receipt])
    assert "canary" not in shown
    assert "two" not in shown
    assert msgspec.json.decode(json.dumps(result.receipt.as_dict()))["verified"] is True


def test_the_answer_of_another_shape_is_not_an_answer(sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway) -> None:
    daemon.reply = lambda body: (200, [b"[1]"])
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete(model_of(daemon), ASK)
    assert caught.value.code == "reply_invalid"
    gateway.faults.append(lambda r: answered([1]))
    with pytest.raises(LatticeError) as caught:
        sdk.get_personal_runtime(daemon.runtime_id)
    assert caught.value.code == "gateway_unreachable"
