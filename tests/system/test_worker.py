"""A real worker process at a gateway that a test plays: right answers, typed failures, and an end in every case."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lattice.fhe import artefact
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.compiler.packing.similarity import compile_encrypted_similarity
from lattice.fhe.hal import instructions as ops
from lattice.fhe.run import Session, client_keys, decrypt, encrypt
from lattice.fhe.serialise.bundle import read_bundle, write_bundle
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, encode_ciphertext
from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key
from lattice.sealing.worker_receipt import read_worker_receipt
from tests.support import compiled as tiny
from tests.support.worker_gateway import CREDENTIAL, WorkerGateway, worker_gateway

MODEL = tiny.compiled()
KEYS = client_keys(MODEL)
SAMPLES = np.array([[0.5, -0.25, 0.125, 1.0], [1.0, 0.0, 0.5, -1.0]])


@cache
def artefact_bytes(folder: Path) -> bytes:
    artefact.save(MODEL, folder / "tiny.lattice")
    return (folder / "tiny.lattice").read_bytes()


def keys_bundle() -> bytes:
    return write_bundle([encode_public_key(KEYS.public, MODEL.params), encode_evaluation_keys(KEYS.evaluation)])


def query() -> bytes:
    return write_bundle(
        [encode_ciphertext(each, MODEL.params) for each in encrypt(MODEL.client, MODEL.params, KEYS.secret, SAMPLES)]
    )


@asynccontextmanager
async def worker(
    gateway: WorkerGateway, folder: Path, data: bytes = b"", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`lattice-ctl worker run` with a pipe from its parent; never outlives the block."""
    gateway.artefact = gateway.artefact or gateway.put(data or artefact_bytes(folder))
    command = [sys.executable, "-m", "lattice.cli.ctl", "worker", "run", "--gateway", gateway.url]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--cache",
        str(folder / "cache"),
        "--watch-parent",
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LATTICE_WORKER_CREDENTIAL": CREDENTIAL, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def active(gateway: WorkerGateway) -> None:
    await gateway.until(lambda: gateway.polls and gateway.polls[-1].active)


async def test_answers_are_right_receipted_and_the_same_every_time(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path) as process:
        await active(gateway)
        asked = query()
        first = gateway.lease(1, keys_bundle(), asked)
        second = gateway.lease(2, keys_bundle(), asked)
        await gateway.until(lambda: len(gateway.results) == 2)
        data, receipt = gateway.results[first]
        assert data == gateway.results[second][0], "two evaluations of one request give one answer"
        found = [decode_ciphertext(each, MODEL.params) for each in read_bundle(data)]
        answer = decrypt(MODEL.client, MODEL.params, KEYS.secret, found)
        wanted = Session(MODEL).run(SAMPLES).values
        assert np.abs(answer.values - wanted).max() < 1e-3
        signed = read_worker_receipt(receipt)
        assert signed.inputs == hashlib.sha256(asked).hexdigest()
        assert signed.outputs == hashlib.sha256(data).hexdigest()
        assert signed.keys == hashlib.sha256(keys_bundle()).hexdigest()
        assert signed.program == MODEL.program.digest.hex()
        assert signed.identity == gateway.polls[-1].identity
        assert gateway.downloads.count(signed.keys) == 1, "keys are fetched and decoded once"
        gateway.stop = "requested"
        gateway.wake()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert gateway.polls[-1].ending
        assert process.stderr is not None
        log = (await process.stderr.read()).decode()
        assert "worker.ended" in log
        assert CREDENTIAL not in log


async def test_a_database_is_fetched_once_and_named_in_every_receipt(tmp_path: Path) -> None:
    search = compile_encrypted_similarity(20, 4).compiled
    keys = client_keys(search)
    artefact.save(search, tmp_path / "search")
    assert search.database is not None

    def sealed(part: ClientPart, samples: np.ndarray) -> bytes:
        made = encrypt(part, search.params, keys.secret, samples)
        return write_bundle([encode_ciphertext(each, search.params) for each in made])

    rows, question = np.random.default_rng(3).normal(size=(20, 4)), sealed(search.client, SAMPLES[:1])
    bundle = write_bundle([encode_public_key(keys.public, search.params), encode_evaluation_keys(keys.evaluation)])
    async with worker_gateway() as gateway:
        gateway.artefact = gateway.put((tmp_path / "search").read_bytes())
        database = gateway.put(sealed(search.database, rows))
        async with worker(gateway, tmp_path):
            await active(gateway)
            asked = [gateway.lease(number, bundle, question, database=database) for number in range(3)]
            await gateway.until(lambda: len(gateway.results) == 3)
            for query_id in asked:
                assert read_worker_receipt(gateway.results[query_id][1]).database == database
            assert gateway.downloads.count(database) == 1
            damaged = gateway.put(gateway.blobs[database][:-1])
            gateway.lease(7, bundle, question, database=damaged)
            gateway.lease(8, bundle, question)
            await gateway.until(lambda: len(gateway.failed) == 2)
            codes = {name: failed.code for name, failed in gateway.failed.items()}
            assert codes == {"qry_7": "blob_invalid", "qry_8": "circuit_invalid"}


async def test_inputs_that_came_with_the_work_are_not_fetched_unless_they_are_others(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path):
        await active(gateway)
        assert gateway.polls[-1].inline
        came, false = query(), query()
        first = gateway.lease(1, keys_bundle(), came, data=came)
        second = gateway.lease(2, keys_bundle(), false, data=came)
        await gateway.until(lambda: len(gateway.results) == 2)
        assert {first, second} == set(gateway.results)
        assert hashlib.sha256(came).hexdigest() not in gateway.downloads
        assert gateway.downloads.count(hashlib.sha256(false).hexdigest()) == 1


async def test_with_short_evaluations_it_asks_for_queries_to_have_at_hand(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path):
        await active(gateway)
        assert gateway.polls[-1].ahead == 0, "nothing was evaluated yet"
        at_once = gateway.polls[-1].concurrency
        gateway.lease(1, keys_bundle(), query())
        await gateway.until(lambda: gateway.polls[-1].ahead and not gateway.polls[-1].running)
        assert gateway.polls[-1].concurrency == at_once + gateway.polls[-1].ahead


async def test_bad_keys_and_ciphertexts_fail_with_their_code_and_the_worker_lives_on(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path):
        await active(gateway)
        keys, asked = keys_bundle(), query()
        damaged = bytearray(asked)
        damaged[-100] ^= 1
        lacking = write_bundle([bytes(each) for each in read_bundle(keys)][:1])
        gateway.lease(1, keys, bytes(damaged))
        gateway.lease(2, lacking, asked)
        gateway.lease(3, keys, write_bundle([]))
        gateway.lease(4, keys[:-1], asked)
        await gateway.until(lambda: len(gateway.failed) == 4)
        codes = {name: failed.code for name, failed in gateway.failed.items()}
        assert codes == {
            "qry_1": "blob_invalid",
            "qry_2": "blob_invalid",
            "qry_3": "circuit_invalid",
            "qry_4": "blob_invalid",
        }
        good = gateway.lease(5, keys, asked)
        await gateway.until(lambda: good in gateway.results)


async def test_a_cancelled_attempt_does_not_cancel_the_next_one(tmp_path: Path) -> None:
    """A gateway tells of the end of an attempt and hands the query out again in one reply, to the same worker."""
    async with worker_gateway() as gateway, worker(gateway, tmp_path):
        await active(gateway)
        gateway.cancels = ["qry_1"]
        again = gateway.lease(1, keys_bundle(), query(), attempt=2)
        await gateway.until(lambda: again in gateway.results or again in gateway.failed)
        assert gateway.failed == {}


LONG = 200_000


def long_artefact(folder: Path) -> bytes:
    """The same model with rotations before it that take minutes."""
    turns = (ops.Rotate(number + 1, number, 1) for number in range(LONG + 1))
    last = (
        ops.Add(LONG + 2, LONG, LONG + 1),
        ops.LoadWeight(LONG + 3, 0),
        ops.MultiplyPlain(LONG + 4, LONG + 2, LONG + 3),
        ops.Rescale(LONG + 5, LONG + 4),
        ops.LoadWeight(LONG + 6, 1),
        ops.AddPlain(LONG + 7, LONG + 5, LONG + 6),
    )
    program = replace(MODEL.program, instructions=(ops.LoadInput(0, 0), *turns, *last), outputs=(LONG + 7,))
    artefact.save(replace(MODEL, program=program), folder / "long.lattice")
    return (folder / "long.lattice").read_bytes()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("why", ["cancel", "deadline"])
async def test_a_cancelled_evaluation_stops_long_before_its_end(tmp_path: Path, why: str) -> None:
    """Counted in instructions. Its slot is free then, and nothing more is said of it."""
    async with worker_gateway() as gateway, worker(gateway, tmp_path, long_artefact(tmp_path)) as process:
        await active(gateway)
        expiry = 1_000 if why == "deadline" else 0
        asked = gateway.lease(1, keys_bundle(), query(), expires_in_ms=expiry)
        await gateway.until(lambda: asked in gateway.polls[-1].running)
        if why == "cancel":
            gateway.cancels.append(asked)
            gateway.wake()
        await gateway.until(lambda: not gateway.polls[-1].running)
        assert not gateway.results
        assert not gateway.failed
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert process.stderr is not None
        log = (await process.stderr.read()).decode()
    (line,) = [line for line in log.splitlines() if "query.cancelled" in line]
    found = re.search(r"executed\D+(\d+)", line)
    assert found is not None, line
    assert int(found[1]) < LONG // 2


async def test_it_ends_by_its_own_clock_when_the_gateway_pays_no_more(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path) as process:
        gateway.paid_for_ms = 1500
        await active(gateway)
        gateway.paid_for_ms = 0
        gateway.wake()
        assert await asyncio.wait_for(process.wait(), 10) == 3


async def test_it_ends_when_its_parent_is_gone(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path) as process:
        await active(gateway)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 3) == 4


async def test_a_signal_drains_it(tmp_path: Path) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path) as process:
        await active(gateway)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert gateway.polls[-1].ending


@pytest.mark.parametrize("status", [401])
async def test_a_refused_credential_ends_it(tmp_path: Path, status: int) -> None:
    async with worker_gateway() as gateway, worker(gateway, tmp_path) as process:
        gateway.refuse = status
        assert await asyncio.wait_for(process.wait(), 10) == 5
