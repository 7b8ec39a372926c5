"""A hash that is computed as parts arrive is that of what is there, or there is none."""

from __future__ import annotations

import hashlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lattice.gateway.encrypted.running_hash import MAX_UPLOADS, RunningHashes
from lattice.gateway.encrypted.upload_rows import UploadRow

PARTS, PART = 4, 10
ROW = UploadRow("upl_a", "acc_a", None, "model", PARTS * PART, b"h" * 32, PART, b"", "open", 0, 1)


@given(st.lists(st.tuples(st.integers(0, PARTS - 1), st.integers(0, 255), st.booleans()), max_size=12))
def test_in_any_order_with_failures_and_other_bytes_the_second_time(
    steps: list[tuple[int, int, bool]],
) -> None:
    """A part may be written and not be marked: then it is written again, perhaps with other bytes."""
    hashes, there, marked = RunningHashes(), [b""] * PARTS, set[int]()
    for part, byte, ends in steps:
        if part in marked:
            continue  # it is compared, not written
        digest = hashes.before(ROW, part)
        there[part] = bytes([byte]) * PART
        if digest is not None:
            digest.update(there[part])
        if ends:
            marked.add(part)
            hashes.after(ROW, part, digest)
    found = hashes.whole(ROW)
    assert found in (None, hashlib.sha256(b"".join(there)).digest())
    if [part for part, _, _ in steps] == list(range(PARTS)) and all(ends for _, _, ends in steps):
        assert found is not None


def test_in_order_it_is_known() -> None:
    hashes = RunningHashes()
    for part in range(PARTS):
        assert hashes.whole(ROW) is None
        digest = hashes.before(ROW, part)
        assert digest is not None
        digest.update(b"x" * PART)
        hashes.after(ROW, part, digest)
    assert hashes.whole(ROW) == hashlib.sha256(b"x" * PARTS * PART).digest()
    hashes.forget(ROW.id)
    assert hashes.whole(ROW) is None


def test_it_remembers_a_bounded_number_of_uploads() -> None:
    hashes = RunningHashes()
    for number in range(MAX_UPLOADS + 1):
        row = msgspec.structs.replace(ROW, id=f"upl_{number}")
        hashes.after(row, 0, hashes.before(row, 0))
    assert hashes.before(msgspec.structs.replace(ROW, id="upl_0"), 1) is None
    assert hashes.before(msgspec.structs.replace(ROW, id="upl_1"), 1) is not None
