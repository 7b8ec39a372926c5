"""The key store: one behaviour in memory and on disk; on disk private, atomic, and never overwritten when damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from lattice.client.disk import FILE_NAME, disk_key_store
from lattice.client.store import MAX_PENDING, KeyStore, PendingPairing, Pin, memory_key_store
from lattice.core.errors import LatticeError
from lattice.sealing.identity import IdentityKey

A, B = "http://a.test", "http://b.test"


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    return memory_key_store() if request.param == "memory" else disk_key_store(tmp_path / "deep" / "client")


def pin(origin: str = A, runtime: str = "lat_1") -> Pin:
    return Pin(origin, runtime, IdentityKey.generate().public.text, "pairing", 1)


def pending(n: int, origin: str = A, runtime: str = "lat_1") -> PendingPairing:
    return PendingPairing(origin, runtime, f"secret{n}", "app", n)


def test_the_sender_key_is_made_once(store: KeyStore) -> None:
    assert store.sender().public == store.sender().public


def test_pins_belong_to_one_gateway_and_one_machine(store: KeyStore) -> None:
    kept = pin()
    store.save_pin(kept)
    assert store.pin(A, "lat_1") == kept
    assert store.pin(B, "lat_1") is None
    assert store.pin(A, "lat_2") is None
    newer = pin()
    store.save_pin(newer)
    assert store.pins() == (newer,)


def test_pending_pairings_are_newest_first_and_bounded(store: KeyStore) -> None:
    for n in range(MAX_PENDING + 3):
        store.add_pending(pending(n))
    store.add_pending(pending(99, B))
    found = store.pending(A, "lat_1")
    assert len(found) == MAX_PENDING
    assert [p.minted_at_ms for p in found[:2]] == [10, 9]
    assert len(store.pending(B, "lat_1")) == 1


def test_a_proof_settles_its_pairing_and_older_ones(store: KeyStore) -> None:
    for n in range(3):
        store.add_pending(pending(n))
    store.save_pin(pin(), pending(1))
    assert [p.minted_at_ms for p in store.pending(A, "lat_1")] == [2]
    store.drop_pending(pending(2))
    assert store.pending(A, "lat_1") == ()


def test_forgetting_leaves_other_machines_alone(store: KeyStore) -> None:
    store.save_pin(pin())
    store.save_pin(pin(runtime="lat_2"))
    store.add_pending(pending(1))
    store.forget(A, "lat_1")
    assert [p.runtime for p in store.pins()] == ["lat_2"]
    assert store.pending(A, "lat_1") == ()


def test_nothing_is_written_before_it_has_to_be(tmp_path: Path) -> None:
    store = disk_key_store(tmp_path / "client")
    assert store.pins() == ()
    assert not (tmp_path / "client").exists()


def test_the_folder_and_the_file_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "client"
    store = disk_key_store(folder)
    store.sender()
    store.save_pin(pin())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert {p.name for p in folder.iterdir()} == {FILE_NAME, "keystore.lock"}


def test_another_store_on_the_same_folder_sees_the_same_keys(tmp_path: Path) -> None:
    one, other = disk_key_store(tmp_path), disk_key_store(tmp_path)
    sender = one.sender().public
    assert other.sender().public == sender
    one.save_pin(pin())
    assert len(other.pins()) == 1
    other.save_pin(pin(runtime="lat_2"))
    assert len(one.pins()) == 2


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b'{"pins": 3}', b"\xff"])
def test_a_damaged_file_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    store = disk_key_store(tmp_path)
    for act in (store.sender, lambda: store.save_pin(pin())):
        with pytest.raises(LatticeError) as caught:
            act()
        assert caught.value.code == "config_invalid"
    assert path.read_bytes() == content


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    disk_key_store(tmp_path).sender()
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(LatticeError, match="chmod 600"):
        disk_key_store(tmp_path).sender()


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = disk_key_store(tmp_path)
    store.save_pin(pin())
    before = (tmp_path / FILE_NAME).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LatticeError, match="No space left"):
        store.save_pin(pin(runtime="lat_2"))
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {FILE_NAME, "keystore.lock"}


def _pin_from_another_process(folder: str, n: int) -> None:
    store = disk_key_store(Path(folder))
    store.sender()
    store.save_pin(pin(runtime=f"lat_{n}"))


def test_processes_do_not_lose_each_others_writes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_pin_from_another_process, args=(str(tmp_path), n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(disk_key_store(tmp_path).pins()) == 4
    assert json.loads((tmp_path / FILE_NAME).read_bytes())["version"] == 1


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    store = memory_key_store()
    store.sender()
    store.add_pending(pending(7))
    shown = repr([store, store._holder, store._holder.read(), store.pending(A, "lat_1")])
    assert "secret7" not in shown
