"""One work: checks in their order, the answer sealed, the receipt signed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lattice.core.chat import Usage
from lattice.core.clock import HOUR_MS, MINUTE_MS
from lattice.core.errors import LatticeError
from lattice.core.relay import LeasedWork, ModelOffer
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.work import SeenWorks
from lattice.sealing.identity import IdentityKey
from tests.unit.runtime.machines import CHAT, MODEL, OFFER, RUNTIME, FakeEngine, FrameList, Machine, chunk, sse, whole


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def machine(tmp_path: Path, engine: FakeEngine) -> Machine:
    return Machine(tmp_path, engine)


async def refused(machine: Machine, leased: LeasedWork) -> LatticeError:
    with pytest.raises(LatticeError) as caught:
        await machine.runner.run(leased, FrameList())
    return caught.value


async def test_a_whole_answer_is_one_verified_frame(machine: Machine, engine: FakeEngine) -> None:
    answer = await machine.run(machine.seal())
    assert msgspec.json.decode(answer.payload) == {**whole(), "model": MODEL}
    assert answer.trailer.finish_reason == "stop"
    assert answer.trailer.usage == Usage(5, 3)
    assert answer.trailer.model_digest == OFFER.digest
    assert answer.receipt.model == "local-model"
    assert answer.tokens == [3]
    assert engine.bodies == [{**CHAT, "model": "local-model", "max_tokens": 16}]


async def test_a_stream_is_sealed_piece_by_piece(machine: Machine, engine: FakeEngine) -> None:
    answer = await machine.run(machine.seal({**CHAT, "stream": True}, stream=True))
    events = [msgspec.json.decode(e[6:]) for e in answer.payload.split(b"\n\n") if e]
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
    assert text == "hello"
    assert {e["model"] for e in events} == {MODEL}
    assert b"usage" not in answer.payload
    assert answer.tokens == [0, 2, 2, 3]
    assert answer.trailer.usage == Usage(5, 3)
    assert engine.bodies[0]["stream_options"] == {"include_usage": True}
    assert engine.streams[0].closed


async def test_usage_is_in_the_stream_for_whoever_asked(machine: Machine) -> None:
    body = {**CHAT, "stream_options": {"include_usage": True}}
    answer = await machine.run(machine.seal(body, stream=True))
    assert b'"total_tokens":8' in answer.payload


async def test_an_engine_without_usage_is_counted(machine: Machine, engine: FakeEngine) -> None:
    engine.batches = [[sse(chunk("a"))], [sse(chunk("b", finish="length"))]]
    answer = await machine.run(machine.seal(stream=True))
    assert answer.trailer.usage == Usage(0, 2)
    assert answer.trailer.finish_reason == "length"


async def test_embeddings(machine: Machine, engine: FakeEngine) -> None:
    reply = {"object": "list", "model": "local-model", "data": [], "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    engine.reply = EngineReply(200, msgspec.json.encode(reply))
    answer = await machine.run(machine.seal({"model": MODEL, "input": "x", "dimensions": 3}, task="embeddings"))
    assert msgspec.json.decode(answer.payload)["model"] == MODEL
    assert answer.trailer.usage == Usage(2, 0)
    assert engine.bodies == [{"model": "local-model", "input": "x", "dimensions": 3}]


@pytest.mark.parametrize(
    "model", [MODEL, f"{MODEL}:local-model", "lattice:local-model", "local-model", f"{MODEL}:second"]
)
async def test_public_model_ids_mean_local_ones(machine: Machine, engine: FakeEngine, model: str) -> None:
    machine.board.offers = (OFFER, ModelOffer("second"))
    await machine.run(machine.seal(model=model))
    assert engine.bodies[0]["model"] == ("second" if model.endswith("second") else "local-model")


@pytest.mark.parametrize(
    "model", [f"{MODEL}:other", "lattice:other", "other", "lattice:personal:lat_01m806efj0gzja7vzw6hq2gf8w"]
)
async def test_an_unknown_model_is_refused(machine: Machine, engine: FakeEngine, model: str) -> None:
    assert (await refused(machine, machine.lease(machine.seal(model=model)))).code == "model_not_found"
    assert engine.bodies == []


async def test_a_task_that_the_model_does_not_do_is_refused(machine: Machine) -> None:
    machine.board.offers = (ModelOffer("local-model"),)
    error = await refused(machine, machine.lease(machine.seal(task="embeddings")))
    assert error.code == "model_not_found"


async def test_no_model_at_all_is_engine_unavailable(machine: Machine) -> None:
    machine.board.offers = ()
    assert (await refused(machine, machine.lease(machine.seal()))).code == "engine_unavailable"


async def test_a_stranger_is_refused_before_anything_is_opened(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_args: object) -> None:
        raise AssertionError("opened work of a sender that is not allowed")

    monkeypatch.setattr("lattice.runtime.work.open_request", forbidden)
    monkeypatch.setattr(machine.keys, "pair", forbidden)
    leased = machine.lease(machine.seal(sender=IdentityKey.generate()))
    assert (await refused(machine, leased)).code == "sender_not_allowed"


async def test_a_removed_sender_is_refused_at_once(machine: Machine) -> None:
    await machine.run(machine.seal())
    machine.allow.remove("test app")
    assert (await refused(machine, machine.lease(machine.seal()))).code == "sender_not_allowed"


async def test_old_work_is_refused(machine: Machine) -> None:
    leased = machine.lease(machine.seal())
    machine.clock.advance(10 * MINUTE_MS)
    assert (await refused(machine, leased)).code == "envelope_expired"


async def test_after_25_hours_asleep_the_old_key_is_gone_and_the_new_one_works(machine: Machine) -> None:
    old = machine.lease(machine.seal(life_ms=48 * HOUR_MS))
    machine.clock.advance(25 * HOUR_MS)
    assert (await refused(machine, old)).code == "work_key_expired"
    assert machine.keys.rotate()
    await machine.run(machine.seal())


async def test_a_replay_is_refused_and_a_higher_attempt_runs(machine: Machine) -> None:
    sealed = machine.seal()
    first = await machine.run(sealed, attempt=1)
    assert (await refused(machine, machine.lease(sealed, 1))).code == "envelope_invalid"
    second = await machine.run(sealed, attempt=2)
    assert first.payload == second.payload
    assert second.receipt.attempt == 2
    assert (await refused(machine, machine.lease(sealed, 1))).code == "envelope_invalid"


async def test_one_work_id_stands_for_one_envelope(machine: Machine) -> None:
    work_id = f"work_{9:026d}"
    await machine.run(machine.seal(work_id=work_id))
    other = machine.seal({**CHAT, "messages": []}, work_id=work_id)
    assert (await refused(machine, machine.lease(other, 2))).code == "envelope_invalid"


async def test_an_envelope_under_another_work_id_is_refused(machine: Machine) -> None:
    leased = LeasedWork(f"work_{77:026d}", 1, machine.seal().envelope.encode(), 2**52)
    assert (await refused(machine, leased)).code == "envelope_invalid"


@pytest.mark.parametrize("cut", [0, 10, -1])
async def test_a_damaged_envelope_is_refused(machine: Machine, cut: int) -> None:
    leased = machine.lease(machine.seal())
    broken = msgspec.structs.replace(leased, envelope=leased.envelope[:cut])
    assert (await refused(machine, broken)).code == "envelope_invalid"


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(machine: Machine, body: bytes) -> None:
    assert (await refused(machine, machine.lease(machine.seal(body)))).code == "invalid_request"


async def test_a_chat_without_a_ceiling_is_refused(machine: Machine) -> None:
    assert (await refused(machine, machine.lease(machine.seal(max_output_tokens=0)))).code == "invalid_request"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_engines_refusal_is_sealed_with_its_status(
    machine: Machine, engine: FakeEngine, stream: bool
) -> None:
    engine.reply = EngineReply(400, b'{"error":{"message":"too long","type":"x"}}')
    answer = await machine.run(machine.seal(stream=stream))
    assert answer.trailer.status == answer.receipt.status == 400
    assert answer.trailer.usage == Usage()
    assert msgspec.json.decode(answer.payload)["error"]["message"] == "too long"


@pytest.mark.parametrize(
    ("status", "code"), [(500, "runtime_failed"), (502, "runtime_failed"), (503, "engine_unavailable")]
)
async def test_the_engines_failures(machine: Machine, engine: FakeEngine, status: int, code: str) -> None:
    engine.reply = EngineReply(status, b"canary")
    error = await refused(machine, machine.lease(machine.seal()))
    assert error.code == code
    assert "canary" not in error.message


async def test_an_engine_that_stops_in_the_middle_fails_the_work(machine: Machine, engine: FakeEngine) -> None:
    engine.batches = [[sse(chunk("a"))]]
    error = await refused(machine, machine.lease(machine.seal(stream=True)))
    assert error.code == "runtime_failed"
    assert engine.streams[0].closed


async def test_a_stream_that_was_answered_whole_fails(machine: Machine, engine: FakeEngine) -> None:
    engine.reply = EngineReply(204, b"")
    assert (await refused(machine, machine.lease(machine.seal(stream=True)))).code == "runtime_failed"


def test_memory_of_works_is_bounded() -> None:
    seen = SeenWorks(limit=2)
    for number in range(3):
        seen.admit(str(number), b"h", 1)
    seen.admit("0", b"h", 1)
    with pytest.raises(LatticeError):
        seen.admit("2", b"h", 1)


def test_the_machine_here_is_the_one_in_the_ids() -> None:
    assert RUNTIME in MODEL
