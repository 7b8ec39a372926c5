"""The parts of the query client that need no gateway: uploads that go on, secrets on disk, receipts, timings."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import pytest

from lattice.client.construct import new_context
from lattice.client.context import Context
from lattice.client.drivers import Driver
from lattice.client.encrypted.key_folder import KeyFolder, Record, Wrapping
from lattice.client.encrypted.keys import make_keys
from lattice.client.encrypted.results import EncryptedQuery, Expected, timings_of, verified
from lattice.client.encrypted.uploads import BytesSource, FileSource, Memo, missing_parts, silent, upload
from lattice.client.exchange import compute
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.sealing.identity import IdentityKey
from lattice.sealing.worker_receipt import WorkerReceipt, sign_worker_receipt
from tests.support.compiled import compiled
from tests.support.fhe import small

PART = 10


class Uploads:
    """A gateway that takes uploads, and may break after some parts."""

    def __init__(self, breaks_after: int | None = None) -> None:
        self.uploads: dict[str, dict[str, Any]] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.sent: list[int] = []
        self.breaks_after = breaks_after

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1/uploads").strip("/").split("/")
        if request.method == "POST" and path == [""]:
            body = msgspec.json.decode(request.content)
            identity = f"upl_{len(self.uploads)}"
            self.uploads[identity] = {"id": identity, "part_bytes": PART, "received": [], "state": "open", **body}
            return httpx2.Response(201, json=self.uploads[identity])
        view = self.uploads.get(path[0])
        if view is None:
            return httpx2.Response(404, json={"error": "not_found", "message": "no"})
        if request.method == "PUT":
            if self.breaks_after is not None and len(self.sent) >= self.breaks_after:
                raise httpx2.ReadTimeout("broken", request=request)
            self.sent.append(int(path[2]))
            view["received"].append(int(path[2]))
            self.parts[path[0], int(path[2])] = request.content
        elif path[-1] == "complete":
            whole = b"".join(self.parts[path[0], part] for part in range(-(-view["bytes"] // PART)))
            assert hashlib.sha256(whole).hexdigest() == view["sha256"]
            view["state"] = "complete"
        return httpx2.Response(200, json=view)


@pytest.fixture
def context() -> Context:
    return new_context("http://127.0.0.1:1", "sk_lat_x", None, None, 0, None)


def driver(gateway: Uploads) -> Driver:
    return Driver(httpx2.Client(transport=httpx2.MockTransport(gateway)))


def test_an_upload_goes_on_where_it_broke(context: Context, tmp_path: Path) -> None:
    data = bytes(range(45))
    (tmp_path / "file").write_bytes(data)
    gateway = Uploads(breaks_after=2)
    memo = Memo(tmp_path / "uploads")
    with pytest.raises(LatticeError) as caught:
        driver(gateway).run(upload(context, "model", FileSource(tmp_path / "file"), memo))
    assert caught.value.code == "gateway_unreachable"
    gateway.breaks_after = None
    seen: list[tuple[int, int]] = []
    plan = upload(context, "model", BytesSource(data), memo, lambda _, done, total: seen.append((done, total)))
    assert driver(gateway).run(plan) == "upl_0"
    assert gateway.sent == [0, 1, 2, 3, 4], "no part is sent twice"
    assert seen == [(20, 45), (30, 45), (40, 45), (45, 45)]
    assert not list((tmp_path / "uploads").iterdir()), "a finished upload is forgotten"


def test_other_bytes_are_another_upload(context: Context, tmp_path: Path) -> None:
    gateway, memo = Uploads(), Memo(tmp_path)
    first = driver(gateway).run(upload(context, "model", BytesSource(b"one"), memo))
    assert driver(gateway).run(upload(context, "model", BytesSource(b"two"), memo)) != first


@pytest.mark.parametrize(
    ("view", "missing"),
    [
        ({"state": "open", "received": [1]}, [0, 2]),
        ({"state": "complete", "received": []}, []),
        ({"state": "open", "received": 3}, [0, 1, 2]),
        ({"state": "open"}, [0, 1, 2]),
    ],
)
def test_missing_parts_whatever_the_gateway_says(view: dict[str, Any], missing: list[int]) -> None:
    assert missing_parts(view, 3) == missing


# --- secrets on disk -------------------------------------------------------------------------------------------------


def folder(root: Path, **how: Any) -> KeyFolder:
    return KeyFolder(root, "http://gateway", "mdl_1", "alice", "ksp_1", Wrapping(root, **how))


@pytest.mark.parametrize("how", [{}, {"passphrase": "correct horse"}, {"wrapping_key": bytes(32)}], ids=str)
def test_a_secret_on_disk_is_sealed_and_opens_again(tmp_path: Path, how: dict[str, Any]) -> None:
    with KeyGenerator(small()).secret_key() as secret:
        folder(tmp_path, **how).write_secret(secret)
        found = folder(tmp_path, **how).secret()
        assert found is not None
        with found:
            assert found.key_id == secret.key_id
            assert (found.coefficients() == secret.coefficients()).all()
        plain = secret.coefficients().tobytes()
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
                assert plain[:64] not in path.read_bytes()
    with pytest.raises(LatticeError):
        folder(tmp_path, passphrase="another").secret()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_wrapping_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with KeyGenerator(small()).secret_key() as secret:
        folder(tmp_path).write_secret(secret)
        (tmp_path / "wrapping.key").chmod(0o644)
        with pytest.raises(LatticeError) as caught:
            folder(tmp_path).secret()
        assert caught.value.code == "config_invalid"


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    place = folder(tmp_path)
    assert (place.record(), place.secret()) == (None, None)
    place.write_record(Record("ksp_1", "fsk_1", "evk_1", "ab"))
    assert place.record() == Record("ksp_1", "fsk_1", "evk_1", "ab")
    (place.path / "record.json").write_bytes(b"{")
    assert place.record() is None


def test_keys_of_a_replacement_that_was_killed_are_not_those_of_the_old_secret(tmp_path: Path) -> None:
    """Else the next run would register the old secret's keys, and every answer would be noise."""
    place, model = folder(tmp_path), compiled()
    view = SimpleNamespace(params=model.params, keys=model.program.checked.keys, keys_id="ksp_1")

    def killed(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    make_keys(view, place, None, silent)  # type: ignore[arg-type]  # and interrupted in its upload
    with pytest.raises(KeyboardInterrupt):
        make_keys(view, place, None, killed)  # type: ignore[arg-type]
    assert place.secret() is not None
    assert not place.bundle.exists()


def test_a_death_leaves_no_half_of_a_file_in_the_folder(tmp_path: Path) -> None:
    place = folder(tmp_path)
    place.write_record(Record("ksp_1", "fsk_1"))
    (place.path / ".new-1234").write_bytes(b"half a bundle")
    place.unlock(place.lock())
    assert sorted(path.name for path in place.path.iterdir()) == ["lock", "record.json"]


def test_users_models_and_gateways_do_not_share_a_secret(tmp_path: Path) -> None:
    wrapping = Wrapping(tmp_path)
    names = [
        ("o", "m", "u", "k"),
        ("x", "m", "u", "k"),
        ("o", "x", "u", "k"),
        ("o", "m", "x", "k"),
        ("o", "m", "u", "x"),
    ]
    assert len({KeyFolder(tmp_path, *name, wrapping).path for name in names}) == len(names)


# --- receipts --------------------------------------------------------------------------------------------------------

WORKER = IdentityKey.generate()
RESULT = b"result"
ASKED = EncryptedQuery(b"asked", 1)


def receipt(**changed: Any) -> str:
    fields: dict[str, Any] = {
        "query": "qry_1",
        "attempt": 1,
        "identity": WORKER.public.text,
        "program": "ab" * 32,
        "weights": "cd" * 32,
        "keys": "ef" * 32,
        "inputs": ASKED.sha256,
        "outputs": hashlib.sha256(RESULT).hexdigest(),
        "milliseconds": 1,
        "finished_at_ms": 1,
    }
    return sign_worker_receipt(WORKER, WorkerReceipt(**{**fields, **changed}))


def expected(**changed: Any) -> Expected:
    view = SimpleNamespace(program_id=f"prg_{'ab' * 16}")
    fields = {"view": view, "weights": "cd" * 32, "keys": "ef" * 32, "inputs": ASKED.sha256, **changed}
    return Expected(**fields)


def test_a_receipt_about_this_very_exchange_is_taken() -> None:
    assert verified(receipt(), RESULT, expected()).query == "qry_1"
    assert verified(receipt(), RESULT, expected(identities=frozenset({WORKER.public.text}))).attempt == 1


@pytest.mark.parametrize(
    ("text", "data", "wanted"),
    [
        (None, RESULT, {}),
        (b64url(b"nonsense"), RESULT, {}),
        (receipt(), b"another result", {}),
        (receipt(program="00" * 32), RESULT, {}),
        (receipt(weights="00" * 32), RESULT, {}),
        (receipt(keys=None), RESULT, {}),
        (receipt(inputs="00" * 32), RESULT, {}),
        (receipt(), RESULT, {"identities": frozenset({"somebody"})}),
    ],
)
def test_any_other_receipt_is_refused(text: str | None, data: bytes, wanted: dict[str, Any]) -> None:
    with pytest.raises(LatticeError) as caught:
        verified(text, data, expected(**wanted))
    assert caught.value.code == "receipt_invalid"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, {}),
        ("queue;dur=1.5, worker;desc=x;dur=20", {"queue": 1.5, "worker": 20.0}),
        ("a;dur=, b;dur=x, ;;,c", {}),
    ],
)
def test_timings_that_can_be_read_are_read(header: str | None, found: dict[str, float]) -> None:
    assert timings_of(header) == found


# --- the SDK ---------------------------------------------------------------------------------------------------------


def test_a_failing_computation_reaches_the_plan_and_closes_it() -> None:
    closed = []

    def plan() -> Iterator[Any]:
        try:
            yield from compute(lambda: 1 // 0)
        finally:
            closed.append(True)

    with pytest.raises(ZeroDivisionError):
        Driver(httpx2.Client()).run(plan())  # type: ignore[arg-type]
    assert closed


def test_importing_the_query_client_loads_no_numbers() -> None:
    program = "import sys, lattice; lattice.QueryClient, lattice.AsyncQueryClient; assert 'numpy' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True)


def test_no_token_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from lattice.client.encrypted.query import QueryClient

    monkeypatch.delenv("LATTICE_ACCESS_TOKEN", raising=False)
    with pytest.raises(LatticeError) as caught:
        QueryClient()
    assert "LATTICE_ACCESS_TOKEN" in caught.value.message
