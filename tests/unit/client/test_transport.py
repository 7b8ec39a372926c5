"""OpenAI's own SDK through the sealing transports: unchanged answers, its own error classes, and exactly one send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from lattice.client.compute import ComputeClient
from lattice.client.store import KeyStore
from lattice.client.transport import AsyncSealedTransport, SealedTransport
from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.stream import MEDIA_ENVELOPE, encode_error
from tests.unit.client.conftest import Sdk
from tests.unit.client.played import KEY, ORIGIN, PlayedDaemon, PlayedGateway, answered, fault

ASK: list[Any] = [{"role": "user", "content": "the canary prompt"}]
CHAT = "POST /chat/completions"


class OpenAISdk:
    """OpenAI's client of either kind, asked through one method. Streams come back as a list of chunks."""

    def __init__(self, kind: str, gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> None:
        self.kind, self.gateway, self.store, self.clock = kind, gateway, store, clock
        self.retries = 2

    def chat(self, **arguments: Any) -> Any:
        return self._run(lambda c: c.chat.completions.create(**arguments), stream=bool(arguments.get("stream")))

    def embed(self, **arguments: Any) -> Any:
        return self._run(lambda c: c.embeddings.create(**arguments))

    def _run(self, ask: Callable[[Any], Any], stream: bool = False) -> Any:
        if self.kind == "async":
            return asyncio.run(self._run_async(ask, stream))
        inner = httpx2.MockTransport(self.gateway)
        transport = SealedTransport(self.store, inner=inner, clock=self.clock)
        with httpx2.Client(transport=transport) as http:
            client = openai.OpenAI(base_url=f"{ORIGIN}/v1", api_key=KEY, http_client=http, max_retries=self.retries)
            result = ask(client)
            return list(result) if stream else result

    async def _run_async(self, ask: Callable[[Any], Any], stream: bool) -> Any:
        inner = httpx2.MockTransport(self.gateway)
        transport = AsyncSealedTransport(self.store, inner=inner, clock=self.clock)
        async with httpx2.AsyncClient(transport=transport) as http:
            client = openai.AsyncOpenAI(
                base_url=f"{ORIGIN}/v1", api_key=KEY, http_client=http, max_retries=self.retries
            )
            result = await ask(client)
            return [item async for item in result] if stream else result


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest, gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> OpenAISdk:
    return OpenAISdk(request.param, gateway, store, clock)


@pytest.fixture
def daemon(sdk: OpenAISdk) -> PlayedDaemon:
    paired = Sdk("sync", sdk.gateway, sdk.store, sdk.clock).pair()
    sdk.gateway.requests.clear()
    return paired


def model_of(daemon: PlayedDaemon) -> str:
    return f"lattice:personal:{daemon.runtime_id}"


def test_a_whole_answer(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    result = sdk.chat(model=model_of(daemon), messages=ASK, max_tokens=9)
    assert result.choices[0].message.content == "one two three"
    assert result.usage.completion_tokens == 3
    assert result.model == model_of(daemon)
    assert daemon.seen[0] == {"model": model_of(daemon), "messages": ASK, "max_tokens": 9}
    sent = sdk.gateway.requests[-1]
    assert sent.headers["content-type"] == MEDIA_ENVELOPE
    assert sent.headers["content-length"] == str(len(sent.content))
    assert b"canary" not in sent.content


def test_a_stream(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    chunks = sdk.chat(model=model_of(daemon), messages=ASK, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two three"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_embeddings(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    result = sdk.embed(model=model_of(daemon), input="x", encoding_format="float")
    assert result.data[0].embedding == [0.5, -0.25]


def test_tools_pass_through_unchanged(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    tools: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    history = [*ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "7", "tool_call_id": "c"}]
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": None, "tool_calls": [call]},
            }
        ],
    }
    daemon.reply = lambda body: (200, [json.dumps(answer).encode()])
    result = sdk.chat(model=model_of(daemon), messages=history, tools=tools, extra_body={"new_field": [1]})
    assert daemon.seen[0]["tools"] == tools
    assert daemon.seen[0]["messages"] == history
    assert daemon.seen[0]["new_field"] == [1]
    assert result.choices[0].message.tool_calls[0].model_dump(exclude_none=True) == call


def test_hosted_models_and_other_routes_pass_through_untouched(sdk: OpenAISdk) -> None:
    assert sdk.chat(model="lattice:tiny", messages=ASK).choices[0].message.content == "plain"
    chunks = sdk.chat(model="lattice:tiny", messages=ASK, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "plain"
    assert sdk.gateway.counted() == {CHAT: 2}
    assert json.loads(sdk.gateway.requests[0].content)["messages"] == ASK


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("runtime_unreachable", openai.ConflictError),
        ("personal_lattice_not_found", openai.NotFoundError),
        ("invalid_credential", openai.AuthenticationError),
        ("sender_not_allowed", openai.PermissionDeniedError),
        ("envelope_expired", openai.UnprocessableEntityError),
        ("runtime_failed", openai.InternalServerError),
    ],
)
def test_errors_raise_openais_classes_after_one_send(
    sdk: OpenAISdk, daemon: PlayedDaemon, code: str, kind: type[openai.APIStatusError]
) -> None:
    sdk.gateway.faults.extend([lambda r: None, *[fault(LatticeError(code, "told so"))] * 9])
    with pytest.raises(kind) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK)
    assert caught.value.code == code
    assert "told so" in caught.value.message
    assert caught.value.request_id == "req_1"
    assert sdk.gateway.counted()[CHAT] == 1


def test_a_lookup_that_fails_raises_openais_class(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.gateway.faults.extend([fault(LatticeError("revoked_grant"))])
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK)
    assert caught.value.code == "revoked_grant"
    assert len(sdk.gateway.requests) == 1


def test_openais_sdk_repeats_what_is_safe_to_repeat(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.gateway.faults.extend([lambda r: None, fault(LatticeError("queue_full", retry_after_ms=0))])
    assert sdk.chat(model=model_of(daemon), messages=ASK).choices[0].message.content == "one two three"
    assert sdk.gateway.counted()[CHAT] == 2


def test_a_broken_connection_is_repeated_by_us_with_identical_bytes_only(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.gateway.faults.extend([lambda r: None, *[fault(httpx2.ReadError("reset"))] * 9])
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK)
    assert caught.value.code == "gateway_unreachable"
    sent = {r.content for r in sdk.gateway.requests if r.method == "POST"}
    assert len(sent) == 1


def test_a_repeat_that_meets_the_first_send_waits_and_never_seals_anew(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    running = fault(LatticeError("idempotency_in_flight"))
    sdk.gateway.faults.extend([lambda r: None, fault(httpx2.ReadError("reset")), *[running] * 9])
    with pytest.raises(openai.ConflictError):
        sdk.chat(model=model_of(daemon), messages=ASK)
    sent = [r.content for r in sdk.gateway.requests if r.method == "POST"]
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_a_timeout_is_not_sent_again(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.gateway.faults.extend([lambda r: None, *[fault(httpx2.ReadTimeout("slow"))] * 9])
    with pytest.raises(openai.InternalServerError):
        sdk.chat(model=model_of(daemon), messages=ASK)
    assert sdk.gateway.counted()[CHAT] == 1


def test_no_connection_at_all_is_openais_connection_error(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.retries = 0
    sdk.gateway.faults.extend([fault(httpx2.ConnectError("refused"))] * 9)
    with pytest.raises(openai.APIConnectionError):
        sdk.chat(model=model_of(daemon), messages=ASK)


@pytest.mark.parametrize("stream", [False, True])
def test_an_engines_refusal_keeps_its_status_and_its_words(sdk: OpenAISdk, daemon: PlayedDaemon, stream: bool) -> None:
    refusal = {"error": {"message": "context is full", "type": "invalid_request_error", "code": "full"}}
    daemon.reply = lambda body: (400, [json.dumps(refusal).encode()])
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK, stream=stream)
    assert caught.value.body == refusal["error"]
    assert sdk.gateway.counted()[CHAT] == 1


@pytest.mark.parametrize("how", ["truncated", "flipped", "no receipt", "error record", "broken connection"])
def test_a_stream_that_breaks_ends_in_an_error_and_never_in_done(
    sdk: OpenAISdk, daemon: PlayedDaemon, how: str
) -> None:
    def mangle(records: list[bytes]) -> list[bytes]:
        if how == "flipped":
            return [*records[:-2], records[-2][:-1] + bytes([records[-2][-1] ^ 1]), records[-1]]
        if how == "error record":
            return [*records[:3], encode_error(LatticeError("runtime_failed"))]
        return records[:-1] if how == "no receipt" else records[:3]

    daemon.mangle = mangle
    if how == "broken connection":
        sdk.gateway.tail = [httpx2.ReadError("reset")]
    codes = {
        "no receipt": "receipt_invalid",
        "error record": "runtime_failed",
        "broken connection": "gateway_unreachable",
    }
    with pytest.raises(openai.APIError) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK, stream=True)
    assert caught.value.code == codes.get(how, "reply_invalid")
    assert sdk.gateway.counted()[CHAT] == 1


def test_the_bytes_of_a_broken_stream_have_no_done(gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> None:
    daemon = Sdk("sync", gateway, store, clock).pair()
    body = {"model": model_of(daemon), "messages": ASK, "stream": True}
    transport = SealedTransport(store, inner=httpx2.MockTransport(gateway), clock=clock)
    with httpx2.Client(transport=transport, headers={"authorization": f"Bearer {KEY}"}) as http:
        whole = http.post(f"{ORIGIN}/v1/chat/completions", json=body)
        assert whole.text.endswith("data: [DONE]\n\n")
        assert whole.headers["content-type"].startswith("text/event-stream")
        assert whole.headers["x-lattice-sealing"] == "end_to_end"
        assert whole.headers["x-lattice-runtime"] == daemon.runtime_id
        assert whole.extensions["lattice"].receipt.verified
        daemon.mangle = lambda records: records[:3]
        broken = http.post(f"{ORIGIN}/v1/chat/completions", json=body)
        assert "[DONE]" not in broken.text
        assert json.loads(broken.text.split("data: ")[-1])["error"]["code"] == "reply_invalid"


def test_an_expired_work_key_is_renewed_behind_openais_back(sdk: OpenAISdk, daemon: PlayedDaemon) -> None:
    sdk.gateway.overrides = {"key_config": b64url(daemon.config.encode())}
    daemon.roll()
    assert sdk.chat(model=model_of(daemon), messages=ASK).choices[0].message.content == "one two three"
    assert sdk.gateway.counted()[CHAT] == 2


def test_an_unverified_machine_is_refused_before_anything_is_sent(sdk: OpenAISdk) -> None:
    daemon = sdk.gateway.add()
    daemon.allowed.add(sdk.store.sender().public)
    with pytest.raises(openai.ConflictError) as caught:
        sdk.chat(model=model_of(daemon), messages=ASK)
    assert caught.value.code == "runtime_unverified"
    assert sdk.gateway.counted()[CHAT] == 0


# --- nothing leaks in the clear ----------------------------------------------------------------------------


@pytest.fixture
def http(gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> httpx2.Client:
    transport = SealedTransport(store, inner=httpx2.MockTransport(gateway), clock=clock)
    return httpx2.Client(transport=transport, headers={"authorization": f"Bearer {KEY}"}, base_url=f"{ORIGIN}/v1/")


def test_another_route_that_names_a_machine_is_refused(http: httpx2.Client, gateway: PlayedGateway) -> None:
    answer = http.post("responses", json={"model": "lattice:personal:lat_x", "input": "secret"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "sealing_mode_unavailable")
    assert not gateway.requests


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": 3}', b"{}", b"[" * 100_000])
def test_a_chat_body_that_cannot_be_judged_is_not_sent(
    http: httpx2.Client, gateway: PlayedGateway, body: bytes
) -> None:
    answer = http.post("chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert not gateway.requests


def test_an_escaped_model_name_is_still_sealed(
    gateway: PlayedGateway, store: KeyStore, clock: ManualClock, http: httpx2.Client
) -> None:
    daemon = Sdk("sync", gateway, store, clock).pair()
    model = model_of(daemon).replace(":", "\\u003a")
    body = b'{"model": "%s", "messages": []}' % model.encode()
    assert http.post("chat/completions", content=body).json()["choices"]
    assert gateway.requests[-1].headers["content-type"] == MEDIA_ENVELOPE


def test_the_mode_gateway_on_purpose_and_sealed_bytes_pass_through(http: httpx2.Client, gateway: PlayedGateway) -> None:
    body = {"model": "lattice:personal:lat_x", "messages": []}
    assert http.post("chat/completions", json=body, headers={"x-lattice-sealing": "gateway"}).status_code == 200
    gateway.faults.append(lambda r: answered({"ok": True}))
    sealed = http.post("chat/completions", content=b"\x00", headers={"content-type": MEDIA_ENVELOPE})
    assert sealed.json() == {"ok": True}


def test_uploads_and_reads_pass_through_unread(http: httpx2.Client, gateway: PlayedGateway) -> None:
    assert http.get("key").json()["path"] == "/key"
    gateway.faults.append(lambda r: answered({"ok": True}))
    assert http.post("files", content=iter([b"a", b"b"]), headers={"content-type": "text/plain"}).json() == {"ok": True}


def test_the_callers_other_headers_go_along(gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> None:
    daemon = Sdk("sync", gateway, store, clock).pair()
    transport = SealedTransport(store, inner=httpx2.MockTransport(gateway), clock=clock)
    headers = {"authorization": f"Bearer {KEY}", "x-team": "blue", "idempotency-key": "mine"}
    with httpx2.Client(transport=transport, headers=headers) as http:
        http.post(f"{ORIGIN}/v1/chat/completions", json={"model": model_of(daemon), "messages": []})
    sent = gateway.requests[-1].headers
    assert (sent["x-team"], sent["idempotency-key"]) == ("blue", "mine")
    assert sent["accept-encoding"] != "identity"


def test_the_transport_and_the_client_share_one_key_store(
    gateway: PlayedGateway, store: KeyStore, clock: ManualClock
) -> None:
    daemon = Sdk("sync", gateway, store, clock).pair()
    inner = httpx2.MockTransport(gateway)
    with httpx2.Client(transport=SealedTransport(store, inner=inner, clock=clock)) as http:
        client = openai.OpenAI(base_url=f"{ORIGIN}/v1", api_key=KEY, http_client=http)
        assert client.chat.completions.create(model=model_of(daemon), messages=ASK).choices
    with httpx2.Client(transport=inner) as http:
        own = ComputeClient(ORIGIN, KEY, store=store, http_client=http, clock=clock)
        assert own.get_personal_runtime(daemon.runtime_id).trust == "verified"
