"""Bodies, headers and messages made to exhaust a gateway: bounded in size, depth and time, and answered in kind."""

from __future__ import annotations

import asyncio
import copy
import resource
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from lattice.core.ids import b64url
from lattice.core.relay import MAX_FRAMES_PER_POST, Announcement, FramesRequest, ModelOffer, ResultFrame
from lattice.sealing.stream import MEDIA_ENVELOPE
from tests.callers import CHAT, RawConnection, connection, counter
from tests.harness import REDEMPTIONS, LiveGateway, RelayRefused, ScriptedRuntime, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

GIB = 1024**3
DEEP = b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DEEP_OBJECTS = b'{"model":"m","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveGateway]:
    """One gateway with little patience, which has to survive all of this."""
    async with running_gateway(tmp_path_factory.mktemp("gateway"), body_seconds=0.4, header_seconds=0.4) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paired(live: LiveGateway) -> ScriptedRuntime:
    return await ScriptedRuntime(live).pair()


@pytest.fixture
def runtime(paired: ScriptedRuntime) -> ScriptedRuntime:
    """A new session of the same machine, so that a test may spoil what it likes of it."""
    made = copy.copy(paired)
    made.new_session()
    return made


def head(live: LiveGateway, path: str, *headers: str, key: str | None = None) -> bytes:
    """A request's head."""
    secret = live.secret if key is None else key
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {secret}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def flood(raw: RawConnection, chunk: bytes, total: int) -> int:
    """Send until the gateway stops it; how much went out."""
    sent = 0
    try:
        while sent < total and not raw.reader.at_eof():
            await asyncio.wait_for(raw.send(chunk), 5)
            sent += len(chunk)
    except (ConnectionError, TimeoutError):
        pass
    return sent


PATHS = [CHAT, "/v1/embeddings", "/v1/api-keys", "/v1/personal-runtimes", REDEMPTIONS, "/v1/relay/frames"]


def credential_for(runtime: ScriptedRuntime, path: str) -> str:
    return runtime.credential if path.startswith("/v1/relay/") else runtime.live.secret


# --- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_a_declared_gibibyte_is_refused_unread(live: LiveGateway, runtime: ScriptedRuntime, path: str) -> None:
    """From its length alone."""
    key = credential_for(runtime, path)
    async with connection(live) as raw:
        await raw.send(head(live, path, f"content-length: {GIB}", key=key))
        status, answer = await raw.answer()
    assert status == 413
    assert b"body_too_large" in answer


@pytest.mark.parametrize("path", PATHS)
async def test_a_gibibyte_in_chunks_is_cut_off(live: LiveGateway, runtime: ScriptedRuntime, path: str) -> None:
    """No length is declared; the gateway stops reading at its limit and its memory does not grow with the body."""
    key = credential_for(runtime, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    async with connection(live) as raw:
        await raw.send(head(live, path, "transfer-encoding: chunked", key=key))
        sent = await flood(raw, chunk, GIB)
        status, _ = await raw.answer()
    assert status in (413, 0)
    assert sent < 128 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


@pytest.mark.parametrize("path", ["/v1/relay/poll", "/v1/relay/frames", CHAT])
async def test_nothing_is_read_from_somebody_without_a_credential(live: LiveGateway, path: str) -> None:
    """Else anybody could make the gateway hold megabytes for each of many connections."""
    async with connection(live) as raw:
        await raw.send(head(live, path, "content-length: 1000000", key="rlc_unknown"))
        assert await asyncio.wait_for(raw.head(), 5) == 401


async def test_a_body_of_just_too_many_bytes(live: LiveGateway) -> None:
    limit = live.gateway.settings.max_body_bytes
    headers = {"authorization": f"Bearer {live.secret}"}
    async with live.http.post(live.url + CHAT, data=b" " * (limit + 1), headers=headers) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "body_too_large"


async def test_sealed_work_over_the_limit(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """A body just under the limit grows by sealing; no daemon would take it, so the gateway says it at once."""
    await runtime.connect()
    start = b'{"model":"%s","messages":[' % runtime.model.encode()
    body = start + b" " * (live.gateway.settings.max_body_bytes - len(start) - 2) + b"]}"
    headers = {"authorization": f"Bearer {live.secret}"}
    async with live.http.post(live.url + CHAT, data=body, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")
    assert await counter(live, "lattice_works_dispatched_total") == 0


# --- depth and form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [DEEP, DEEP_OBJECTS, b"[" * 100_000], ids=["arrays", "objects", "unclosed"])
@pytest.mark.parametrize("path", [CHAT, "/v1/api-keys", "/v1/personal-runtimes", REDEMPTIONS])
async def test_json_nested_a_hundred_thousand_deep(live: LiveGateway, path: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {live.secret}", "content-type": "application/json"}
    async with live.http.post(live.url + path, data=body, headers=headers) as response:
        assert response.status == 400, await response.text()
        assert "invalid_request" in await response.text()
    assert (await live.call("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"\xff\xfe\x00",
        b'{"model": 3}',
        b'{"messages": []}',
        b'{"model": "m", "stream": "yes"}',
        b'{"model": "m", "n": 0}',
        b'{"model": "m", "n": 1e9}',
        b'{"model": "m", "max_tokens": 0}',
        b'{"model": "m", "max_tokens": -1}',
        b'{"model": "m", "max_tokens": 99999999999999999999}',
        b'{"model": "\\ud800"}',
        b'{"model": "m", "stream_options": 7}',
    ],
)
async def test_a_body_of_the_wrong_form_is_the_caller_s_mistake(live: LiveGateway, body: bytes) -> None:
    """And the answer does not quote it."""
    headers = {"authorization": f"Bearer {live.secret}"}
    async with live.http.post(live.url + CHAT, data=body, headers=headers) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error")


@pytest.mark.parametrize("model", ["", "lattice:", "lattice:personal:", "lattice:personal:x", "x" * 300, "a\nb", "\0"])
async def test_a_model_that_cannot_exist(live: LiveGateway, model: str) -> None:
    status, body = await live.chat(model)
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")


@pytest.mark.parametrize("local", ["x" * 300, "a\nb", "\0", "../..", "<script>", "%"])
async def test_a_local_model_that_does_not_exist(live: LiveGateway, runtime: ScriptedRuntime, local: str) -> None:
    await runtime.connect()
    status, body = await live.chat(f"{runtime.model}:{local}")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_an_output_ceiling_beyond_the_header_s_range(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The header holds 31 bits; more is the caller's mistake and not a broken envelope."""
    await runtime.connect()
    status, body = await live.chat(runtime.model, max_tokens=2**40)
    assert (status, body["error"]["code"]) == (400, "invalid_request")


# --- time ------------------------------------------------------------------------------------------------------------


async def test_slow_headers_are_cut_off(live: LiveGateway) -> None:
    """A connection that dribbles its headers holds nothing but itself, and not for long."""
    async with connection(live) as raw:
        await raw.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ")
        status, answer = await asyncio.wait_for(raw.answer(), 10)
    assert (status, b"request_timeout" in answer) == (408, True)


async def test_a_silent_connection_is_cut_off(live: LiveGateway) -> None:
    async with connection(live) as raw:
        assert (await asyncio.wait_for(raw.answer(), 10))[0] == 408


async def test_slow_headers_on_a_kept_connection_are_cut_off(live: LiveGateway) -> None:
    """The second request of a connection gets no more patience than the first."""
    async with connection(live) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await raw.reader.readuntil(b"}")
        await raw.send(b"GET /healthz HT")
        status, _ = await asyncio.wait_for(raw.answer(), 10)
    assert status == 408


async def test_an_idle_kept_connection_is_not_cut_off(live: LiveGateway) -> None:
    """Clients pool connections; one that waits between requests is not slow."""
    async with connection(live) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await raw.reader.readuntil(b"}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(raw.reader.read(1), 0.9)
        await raw.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await raw.reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")


async def test_endless_headers_are_cut_off(live: LiveGateway) -> None:
    """Fast, but without end: the size of a request's head is bounded too."""
    async with connection(live) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        line = b"x-many: " + b"y" * 4000 + b"\r\n"
        sent = await flood(raw, line * 16, 64 * 1024 * 1024)
    assert sent < 8 * 1024 * 1024


@pytest.mark.parametrize("path", [CHAT, "/v1/api-keys", REDEMPTIONS])
async def test_a_slow_body_is_cut_off(live: LiveGateway, path: str) -> None:
    async with connection(live) as raw:
        await raw.send(head(live, path, "content-length: 1000", "content-type: application/json") + b"{")
        status, answer = await asyncio.wait_for(raw.answer(), 10)
    assert (status, b"request_timeout" in answer) == (408, True)


async def test_a_dribbled_body_is_cut_off_as_a_whole(live: LiveGateway) -> None:
    """Each byte in time does not make the request in time."""
    async with connection(live) as raw:
        await raw.send(head(live, CHAT, "content-length: 1000"))

        async def dribble() -> None:
            while True:
                await raw.send(b" ")
                await asyncio.sleep(0.1)

        dribbling = asyncio.create_task(dribble())
        status, _ = await asyncio.wait_for(raw.answer(), 10)
        dribbling.cancel()
    assert status == 408


async def test_a_caller_that_gives_up_in_its_body_leaves_nothing(live: LiveGateway) -> None:
    async with connection(live) as raw:
        await raw.send(head(live, CHAT, "content-length: 1000") + b"{")
    assert (await live.call("GET", "/healthz"))[0] == 200
    assert await counter(live, "lattice_works_in_flight") == 0


# --- the relay -------------------------------------------------------------------------------------------------------

GOOD = msgspec.msgpack.encode({"protocol": 1, "session": "s", "instance": "i"})
GARBAGE = {
    "empty": b"",
    "truncated": GOOD[:-3],
    "random": bytes(range(256)) * 4,
    "json": b'{"protocol": 1}',
    "of another type": msgspec.msgpack.encode([1, 2, 3]),
    "a member of another type": msgspec.msgpack.encode({"protocol": "x", "session": 1, "instance": None}),
    "nested without end": b"\x91" * 100_000,
    "an array that claims four billion members": b"\xdd\xff\xff\xff\xff",
    "a string that claims four gibibytes": b"\x81\xdb\xff\xff\xff\xff",
    "bytes that are no text": msgspec.msgpack.encode({"protocol": 1, "session": b"\xff", "instance": "i"}),
}


@pytest.mark.parametrize("route", ["poll", "frames", "renew", "fail"])
@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_on_the_relay(live: LiveGateway, runtime: ScriptedRuntime, route: str, what: str) -> None:
    with pytest.raises(RelayRefused) as refused:
        await runtime.post(route, GARBAGE[what])
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")


GIANT: dict[str, dict[str, Any]] = {
    "models": {"models": tuple(ModelOffer(f"m{n}") for n in range(1001))},
    "a long name": {"models": (ModelOffer("m" * 201),)},
    "no name": {"models": (ModelOffer(""),)},
    "an unprintable name": {"models": (ModelOffer("two\nlines"),)},
    "a negative default": {"models": (ModelOffer("m", default_max_output_tokens=-1),)},
    "a huge default": {"models": (ModelOffer("m", default_max_output_tokens=2**40),)},
    "keys": {"key_configs": (b"x",) * 17},
    "a long key": {"key_configs": (b"x" * 10_000,)},
    "an empty key": {"key_configs": (b"",)},
    "a long version": {"version": "v" * 300_000},
}


@pytest.mark.parametrize("what", GIANT)
async def test_a_giant_announcement(live: LiveGateway, runtime: ScriptedRuntime, what: str) -> None:
    """It would be kept in memory, in the database and in every list of models."""
    said = Announcement(**{"key_configs": (runtime.key_config,), "models": (), **GIANT[what]})
    message = {"protocol": 1, "session": "s", "instance": "i", "announce": said}
    path = f"/v1/personal-runtimes/{runtime.runtime}"
    before = (await live.call("GET", path))[1]
    with pytest.raises(RelayRefused) as refused:
        await runtime.post("poll", message)
    assert refused.value.status == 400
    after = (await live.call("GET", path))[1]
    assert (after["models"], after["key_config"]) == (before["models"], b64url(runtime.key_config))


@pytest.mark.parametrize("name", ["session", "instance"])
async def test_an_endless_session_name(live: LiveGateway, runtime: ScriptedRuntime, name: str) -> None:
    with pytest.raises(RelayRefused) as refused:
        await runtime.poll(**{name: "s" * 65})
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")


async def test_too_many_frames_in_one_post(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    await runtime.connect()
    frame = ResultFrame("work_" + "0" * 26, 1, 0, 0, b"")
    with pytest.raises(RelayRefused) as refused:
        await runtime.post("frames", FramesRequest(runtime.session, (frame,) * (MAX_FRAMES_PER_POST + 1)))
    assert refused.value.code == "invalid_request"


async def test_frames_of_nobody_s_work_are_lost(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Whatever ids, attempts and sequence numbers a machine makes up."""
    await runtime.connect()
    for work, attempt, sequence in (("", 0, 0), ("work_x", -1, -1), ("x" * 1000, 2**62, 2**62)):
        assert (await runtime.frames(ResultFrame(work, attempt, sequence, 0, b""))).lost


# --- credentials on the wrong door -----------------------------------------------------------------------------------


async def test_a_relay_credential_opens_no_api(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    for method, path in (("POST", CHAT), ("GET", "/v1/key"), ("GET", "/v1/personal-runtimes"), ("GET", "/v1/models")):
        status, _ = await live.call(method, path, {} if method == "POST" else None, key=runtime.credential)
        assert status == 401


async def test_a_developer_key_opens_no_relay(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    runtime.credential = live.secret
    for route in ("poll", "frames", "renew", "fail"):
        with pytest.raises(RelayRefused) as refused:
            await runtime.post(route, GOOD)
        assert (refused.value.status, refused.value.code) == (401, "invalid_credential")


@pytest.mark.parametrize("credential", ["", "rlc_", "rlc_" + "A" * 43, "rlc_" + "A" * 100_0, "lbt_x"])
async def test_an_unknown_relay_credential(live: LiveGateway, runtime: ScriptedRuntime, credential: str) -> None:
    runtime.credential = credential
    with pytest.raises(RelayRefused) as refused:
        await runtime.poll()
    assert (refused.value.status, refused.value.code) == (401, "invalid_credential")


# --- routes that are not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/embeddings", 405, "method_not_allowed"),
        ("GET", "/v1/relay/poll", 405, "method_not_allowed"),
        ("PUT", "/v1/personal-runtimes", 405, "method_not_allowed"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", CHAT + "/", 404, "not_found"),
        ("GET", "/v1/../etc/passwd", 404, "not_found"),
    ],
)
async def test_a_wrong_door_answers_from_the_catalogue(
    live: LiveGateway, method: str, path: str, status: int, code: str
) -> None:
    """In JSON with a code, so that programs need no second parser for these."""
    got, body = await live.call(method, path)
    error = body["error"] if isinstance(body["error"], str) else body["error"]["code"]
    assert (got, error) == (status, code)
    assert MEDIA_ENVELOPE not in str(body)
