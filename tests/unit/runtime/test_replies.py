"""What changes in an engine's answer, and above all what does not."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.runtime.replies import StreamRewriter, error_payload, rewrite_whole
from tests.unit.runtime.machines import STREAM, USAGE_CHUNK, chunk, sse, whole

PUBLIC = "lattice:personal:lat_x"


def feed_all(rewriter: StreamRewriter, batches: list[list[bytes]]) -> bytes:
    return b"".join(rewriter.feed(batch) for batch in batches)


def test_a_stream_is_renamed_counted_and_loses_its_usage() -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=False)
    payload = feed_all(rewriter, STREAM)
    events = [msgspec.json.decode(e.removeprefix(b"data: ")) for e in payload.split(b"\n\n") if e]
    assert [e["model"] for e in events] == [PUBLIC] * 4
    assert b"usage" not in payload
    assert b"[DONE]" not in payload
    assert rewriter.done
    assert rewriter.complete
    assert rewriter.finish_reason == "stop"
    assert rewriter.final_usage() == Usage(5, 3)


def test_usage_is_kept_for_whoever_asked() -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=True)
    assert b'"completion_tokens":3' in feed_all(rewriter, STREAM)


def test_all_other_bytes_stay_as_the_engine_wrote_them() -> None:
    odd = b'data: { "x":1.50,"model" : "m", "choices":[],  "z": "\\u00e9" }\n\n'
    spaced = b'data: {"x":1.50, "model": "m", "choices":[],  "z": "\\u00e9" }\n\n'
    rewriter = StreamRewriter(PUBLIC, keep_usage=True)
    assert rewriter.feed([spaced]) == spaced.replace(b'"model": "m"', b'"model":"lattice:personal:lat_x"')
    assert msgspec.json.decode(rewriter.feed([odd])[6:])["model"] == PUBLIC


def test_the_callers_text_is_never_rewritten() -> None:
    text = 'say "model":"local-model" please'
    rewriter = StreamRewriter(PUBLIC, keep_usage=True)
    event = msgspec.json.decode(rewriter.feed([sse(chunk(text))])[6:])
    assert event["choices"][0]["delta"]["content"] == text
    assert event["model"] == PUBLIC


def test_a_nested_model_member_is_not_the_answers_name() -> None:
    event = sse({"extra": {"model": "local-model"}, "model": "local-model", "choices": []})
    got = msgspec.json.decode(StreamRewriter(PUBLIC, True).feed([event])[6:])
    assert got == {"extra": {"model": "local-model"}, "model": PUBLIC, "choices": []}


def test_counting_never_falls_and_the_engines_usage_is_final() -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=False)
    for _ in range(5):
        rewriter.feed([sse(chunk("x"))])
    rewriter.feed([sse(USAGE_CHUNK)])
    assert rewriter.tokens == 5
    assert rewriter.final_usage().completion_tokens == 3


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"tool_calls": [{"index": 0}]},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
    ],
)
def test_every_kind_of_delta_counts(delta: dict[str, object]) -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=False)
    rewriter.feed([sse({"choices": [{"delta": delta}]}), sse({"choices": [{"delta": {"content": ""}}]})])
    assert rewriter.tokens == 1
    assert rewriter.final_usage() == Usage(0, 1)


def test_an_error_inside_the_stream_fails_the_work() -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=False)
    with pytest.raises(LatticeError) as caught:
        rewriter.feed([sse({"error": {"message": "canary"}})])
    assert caught.value.code == "runtime_failed"
    assert "canary" not in caught.value.message


def test_a_stream_that_just_stops_is_not_complete() -> None:
    rewriter = StreamRewriter(PUBLIC, keep_usage=False)
    rewriter.feed([sse(chunk("x"))])
    assert not rewriter.complete


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: []\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
def test_nonsense_is_runtime_failed(data: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        StreamRewriter(PUBLIC, False).feed([data])
    assert caught.value.code == "runtime_failed"


def test_a_whole_answer() -> None:
    reply = rewrite_whole(msgspec.json.encode(whole("model")), PUBLIC)
    assert msgspec.json.decode(reply.payload) == {**whole("model"), "model": PUBLIC}
    assert reply.usage == Usage(5, 3)
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize("value", [-1, "3", None, 1.5, True])
def test_a_strange_count_is_zero(value: object) -> None:
    reply = rewrite_whole(msgspec.json.encode({"model": "m", "usage": {"completion_tokens": value}}), PUBLIC)
    assert reply.usage == Usage()


@given(st.text(), st.text(max_size=20))
def test_whatever_the_text_only_the_name_changes(text: str, model: str) -> None:
    answer = whole(text, model)
    for body in (msgspec.json.encode(answer), json.dumps(answer).encode()):
        assert msgspec.json.decode(rewrite_whole(body, PUBLIC).payload) == {**answer, "model": PUBLIC}


def test_an_engines_refusal_keeps_openais_shape() -> None:
    right = b'{"error":{"message":"no","type":"x"}}'
    assert error_payload(400, right) == right
    assert msgspec.json.decode(error_payload(400, b'{"error":"no"}'))["error"]["message"] == "no"
    assert "400" in msgspec.json.decode(error_payload(400, b"<html>"))["error"]["message"]
