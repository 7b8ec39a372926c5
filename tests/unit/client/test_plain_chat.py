"""The mode `gateway`, hosted models, and the routes about keys and money."""

from __future__ import annotations

import json

import httpx2
import pytest

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from tests.unit.client.conftest import Sdk
from tests.unit.client.played import Chunks, PlayedDaemon, PlayedGateway, answered, chunk, fault, refused, sse

ASK = [{"role": "user", "content": "hello"}]
CHAT = "POST /chat/completions"


def test_a_hosted_model_is_asked_in_the_gateways_own_mode(sdk: Sdk, gateway: PlayedGateway) -> None:
    result = sdk.chat_complete("lattice:tiny", ASK, seed=1)
    assert (result.text, result.sealing, result.receipt) == ("plain", "gateway", None)
    assert (result.runtime, result.work_id, result.usage) == ("lat_x", "work_x", Usage(5, 3))
    sent = gateway.requests[-1]
    assert json.loads(sent.content) == {"model": "lattice:tiny", "messages": ASK, "seed": 1}
    assert "x-lattice-sealing" not in sent.headers
    assert sent.headers["idempotency-key"].startswith("lattice-")


def test_a_personal_machine_can_be_asked_through_the_gateways_sealing(
    sdk: Sdk, daemon: PlayedDaemon, gateway: PlayedGateway
) -> None:
    result = sdk.chat_complete_for_personal_runtime(daemon.runtime_id, ASK, sealing="gateway")
    assert result.sealing == "gateway"
    assert gateway.requests[-1].headers["x-lattice-sealing"] == "gateway"


@pytest.mark.parametrize("stream", [False, True])
def test_a_demanded_mode_is_never_downgraded(sdk: Sdk, gateway: PlayedGateway, stream: bool) -> None:
    gateway.mode = "none"
    with pytest.raises(LatticeError) as caught:
        (sdk.chat_stream if stream else sdk.chat_complete)("lattice:tiny", ASK, sealing="gateway")
    assert caught.value.code == "sealing_mode_unavailable"


def test_a_plain_stream_ends_with_done(sdk: Sdk) -> None:
    stream, deltas = sdk.chat_stream("lattice:tiny", ASK)
    assert [d.text for d in deltas] == ["pl", "ain"]
    assert stream.finished
    assert (stream.sealing, stream.receipt, stream.usage) == ("gateway", None, None)


def test_the_usage_chunk_of_a_plain_stream_is_kept(sdk: Sdk, gateway: PlayedGateway) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
    pieces: list[bytes | Exception] = [sse(chunk("m", {"content": "x"})), sse(usage), b"data: [DONE]\n\n"]
    gateway.plain = lambda body: httpx2.Response(200, stream=Chunks(pieces))
    stream, _ = sdk.chat_stream("m", ASK, stream_options={"include_usage": True})
    assert stream.usage == Usage(2, 1)


def test_a_plain_stream_without_done_is_not_whole(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.plain = lambda body: httpx2.Response(200, stream=Chunks([sse(chunk("m", {"content": "x"}))]))
    with pytest.raises(LatticeError) as caught:
        sdk.chat_stream("m", ASK)
    assert caught.value.code == "reply_invalid"


def test_an_error_event_in_a_plain_stream_is_raised(sdk: Sdk, gateway: PlayedGateway) -> None:
    error = LatticeError("personal_lattice_execution_timeout", "too slow").openai_body()
    gateway.plain = lambda body: httpx2.Response(200, stream=Chunks([sse(chunk("m", {"content": "x"})), sse(error)]))
    with pytest.raises(LatticeError, match="too slow") as caught:
        sdk.chat_stream("m", ASK)
    assert caught.value.code == "personal_lattice_execution_timeout"


def test_errors_are_typed_and_keep_their_details(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.append(fault(LatticeError("no_runtime_meets_policy", details={"candidates": [{"id": "lat_1"}]})))
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete("lattice:tiny", ASK)
    assert caught.value.code == "no_runtime_meets_policy"
    assert caught.value.details == {"candidates": [{"id": "lat_1"}]}
    assert caught.value.request_id == "req_1"


def test_an_engines_own_refusal_that_the_gateway_passed_on_is_not_a_broken_gateway(
    sdk: Sdk, gateway: PlayedGateway
) -> None:
    gateway.plain = lambda body: answered({"error": {"message": "no such field", "type": "bad", "code": None}}, 400)
    with pytest.raises(LatticeError, match=r"400 \(bad\)") as caught:
        sdk.chat_complete("m", ASK)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": []}},
        {"error": {"code": {"a": 1}}},
        {"error": []},
        {"error": "rate_limited", "retryAfterMs": "soon"},
        {"error": "rate_limited", "retryAfterMs": -5},
        {"error": "rate_limited", "message": 5},
        [],
        None,
    ],
)
def test_a_hostile_error_body_is_still_a_catalogued_error(sdk: Sdk, gateway: PlayedGateway, body: object) -> None:
    gateway.faults.append(lambda r: answered(body, 429))
    with pytest.raises(LatticeError):
        sdk.chat_complete("m", ASK)
    assert len(gateway.requests) == 1


def test_the_method_decides_about_streaming(sdk: Sdk) -> None:
    with pytest.raises(LatticeError, match="chat_stream"):
        sdk.chat_complete("m", ASK, stream=True)


def test_an_argument_that_is_not_json_is_the_callers_mistake(sdk: Sdk, gateway: PlayedGateway) -> None:
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete("m", ASK, tools=object())
    assert caught.value.code == "invalid_request"
    assert not gateway.requests


# --- retries: counts of sent requests ----------------------------------------------------------------------


def test_a_connection_that_never_was_is_tried_again_and_given_up(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.extend([fault(httpx2.ConnectError("refused"))] * 9)
    with pytest.raises(LatticeError, match="nothing was sent") as caught:
        sdk.chat_complete("m", ASK)
    assert caught.value.code == "gateway_unreachable"
    assert len(gateway.requests) == 3
    assert sdk.pauses[0] < sdk.pauses[1] <= 0.5


def test_a_dropped_chat_is_repeated_under_the_same_idempotency_key(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.extend([fault(httpx2.ReadError("reset")), fault(LatticeError("idempotency_in_flight"))])
    assert sdk.chat_complete("m", ASK).text == "plain"
    keys = {r.headers["idempotency-key"] for r in gateway.requests}
    assert len(gateway.requests) == 3
    assert len(keys) == 1
    assert len({r.content for r in gateway.requests}) == 1


def test_a_given_idempotency_key_is_used(sdk: Sdk, gateway: PlayedGateway) -> None:
    sdk.chat_complete("m", ASK, idempotency_key="mine")
    assert gateway.requests[-1].headers["idempotency-key"] == "mine"


def test_a_read_timeout_is_never_repeated(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.append(fault(httpx2.ReadTimeout("slow")))
    with pytest.raises(LatticeError, match="may still be running"):
        sdk.chat_complete("m", ASK)
    assert len(gateway.requests) == 1


def test_a_creating_post_that_may_have_arrived_is_sent_once(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.append(fault(httpx2.RemoteProtocolError("gone")))
    with pytest.raises(LatticeError, match="may have arrived"):
        sdk.create_personal_runtime("laptop")
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (LatticeError("rate_limited", retry_after_ms=1000), 3),
        (LatticeError("draining", retry_after_ms=1000), 3),
        (LatticeError("store_unavailable", retry_after_ms=1000), 3),
        (LatticeError("rate_limited"), 1),
        (LatticeError("rate_limited", retry_after_ms=120_000), 1),
        (LatticeError("internal", retry_after_ms=1000), 1),
        (LatticeError("credits_exhausted", retry_after_ms=1000), 1),
    ],
)
def test_only_named_waits_of_retryable_errors_are_repeated(
    sdk: Sdk, gateway: PlayedGateway, error: LatticeError, sent: int
) -> None:
    gateway.faults.extend([fault(error)] * 9)
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete("m", ASK)
    assert caught.value.code == error.code
    assert len(gateway.requests) == sent


def test_a_proxys_page_is_not_retried_and_not_quoted(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.append(lambda r: httpx2.Response(502, text="<html>bad gateway: canary</html>"))
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete("m", ASK)
    assert caught.value.code == "gateway_unreachable"
    assert "canary" not in str(caught.value)
    assert len(gateway.requests) == 1


def test_a_redirect_is_not_followed_with_the_key(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.append(lambda r: httpx2.Response(307, headers={"location": "http://evil.test/"}))
    with pytest.raises(LatticeError):
        sdk.chat_complete("m", ASK)
    assert len(gateway.requests) == 1


def test_retry_after_in_the_header_alone_is_honoured(sdk: Sdk, gateway: PlayedGateway) -> None:
    busy = refused(LatticeError("queue_full"))
    busy.headers["retry-after"] = "3"
    gateway.faults.append(lambda r: busy)
    sdk.chat_complete("m", ASK)
    assert 3 <= sdk.pauses[0] < 4


# --- keys and money ----------------------------------------------------------------------------------------


def test_lists_are_iterated_over_all_pages(sdk: Sdk, gateway: PlayedGateway) -> None:
    assert [e["id"] for e in sdk.ledger_entries(limit=2)] == [f"ent_{n}" for n in range(5)]
    assert [r.url.params.get("cursor") for r in gateway.requests] == [None, "2", "4"]
    assert len(sdk.usage()) == 5


def test_a_cursor_that_does_not_move_is_an_error(sdk: Sdk, gateway: PlayedGateway) -> None:
    gateway.faults.extend([lambda r: answered({"data": [1], "next_cursor": "x"})] * 3)
    with pytest.raises(LatticeError, match="malformed page"):
        sdk.ledger_entries()


def test_the_callers_own_key_models_and_credits(sdk: Sdk) -> None:
    assert sdk.key()["path"] == "/key"
    assert sdk.credits()["path"] == "/credits"
    assert sdk.models() == [{"id": "lattice:tiny"}]
