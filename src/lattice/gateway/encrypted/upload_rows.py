"""Rows of `uploads`: what was announced, which parts are there, and how it ended."""

from __future__ import annotations

from typing import Literal

import msgspec
from sqlalchemy import Connection, String, bindparam, case, delete, func, insert, select, update

from lattice.core.clock import DAY_MS
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.encrypted_schema import uploads

UploadKind = Literal["model", "calibration", "evaluation_keys", "ciphertext", "database"]
UploadState = Literal["open", "complete", "expired"]

MIB = 1024 * 1024
PART_BYTES = 8 * MIB
LIFE_MS = DAY_MS
KEEP_MS = DAY_MS
"""Ended uploads stay listed this long, so that a repeated `complete` gets its answer and the bytes can be used."""
MAX_OPEN = 32
MAX_BYTES = 32 * 1024 * MIB
"""Of what is open or was completed within a day, for the account's keys together and for each access token."""
LIMITS: dict[UploadKind, int] = {
    "model": 2048 * MIB,
    "calibration": 512 * MIB,
    "evaluation_keys": 4096 * MIB,
    "ciphertext": 512 * MIB,
    "database": 4096 * MIB,
}
PROVIDER_KINDS: tuple[UploadKind, ...] = ("model", "calibration")
USER_KINDS: tuple[UploadKind, ...] = ("evaluation_keys", "ciphertext", "database")

_c = uploads.c
_INSERT = insert(uploads)
_GET = select(uploads).where(_c.id == bindparam("upload"), _c.account_id == bindparam("account"))
_HELD = select(
    func.coalesce(func.sum(case((_c.state == "open", 1), else_=0)), 0), func.coalesce(func.sum(_c.bytes), 0)
).where(
    _c.account_id == bindparam("account"),
    _c.token_id.is_not_distinct_from(bindparam("token", type_=String)),
    _c.state != "expired",
    _c.expires_at_ms > bindparam("now"),
)
_MARK = update(uploads).where(_c.id == bindparam("upload")).values(received=bindparam("parts"))
_END = (
    update(uploads)
    .where(_c.id == bindparam("upload"), _c.state == "open")
    .values(state=bindparam("end"), expires_at_ms=bindparam("until"))
)
_OPEN = select(_c.id).where(_c.state == "open")
_OVERDUE = select(_c.id).where(_c.state == "open", _c.expires_at_ms <= bindparam("now")).limit(100)
_FORGET = delete(uploads).where(_c.state != "open", _c.expires_at_ms <= bindparam("now"))


class UploadRow(msgspec.Struct, frozen=True):
    """One row of `uploads`, in the table's order."""

    id: str
    account_id: str
    token_id: str | None
    kind: UploadKind
    size: int = msgspec.field(name="bytes")
    sha256: bytes
    part_bytes: int
    received: bytes
    state: UploadState
    created_at_ms: int
    expires_at_ms: int

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.size // self.part_bytes)

    def has(self, part: int) -> bool:
        """Whether that part is there."""
        return bool(self.received[part // 8] >> part % 8 & 1)

    def missing(self) -> list[int]:
        """The parts that are not."""
        return [part for part in range(self.parts) if not self.has(part)]

    def part_size(self, part: int) -> int:
        """Bytes of a part; `invalid_request` for one that does not exist."""
        if not 0 <= part < self.parts:
            raise LatticeError("invalid_request", f"The upload has the parts 0 to {self.parts - 1}.")
        return min(self.part_bytes, self.size - part * self.part_bytes)

    def require_open(self, now_ms: int) -> None:
        """Raise `upload_expired` for one that takes nothing any more."""
        if self.state == "expired" or (self.state == "open" and self.expires_at_ms <= now_ms):
            raise LatticeError("upload_expired")


class NewUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What is announced."""

    account_id: str
    token_id: str | None
    kind: UploadKind
    size: int = msgspec.field(name="bytes")
    sha256: bytes


def create_upload(conn: Connection, new: NewUpload, now_ms: int) -> UploadRow:
    """Announce an upload. Raises `body_too_large` or `too_many_uploads`."""
    if new.size > LIMITS[new.kind]:
        raise LatticeError("body_too_large", f"An upload of kind {new.kind} has at most {LIMITS[new.kind]} bytes.")
    kinds = PROVIDER_KINDS if new.token_id is None else USER_KINDS
    if new.kind not in kinds:
        raise LatticeError("invalid_request", f"This credential uploads {' or '.join(kinds)}.")
    held = {"account": new.account_id, "token": new.token_id, "now": now_ms}
    count, total = conn.execute(_HELD, held).one()
    if count >= MAX_OPEN or total + new.size > MAX_BYTES:
        raise LatticeError("too_many_uploads")
    parts = -(-new.size // PART_BYTES)
    row = UploadRow(
        new_id(Prefix.UPLOAD, now_ms),
        new.account_id,
        new.token_id,
        new.kind,
        new.size,
        new.sha256,
        PART_BYTES,
        bytes(-(-parts // 8)),
        "open",
        now_ms,
        now_ms + LIFE_MS,
    )
    conn.execute(_INSERT, msgspec.to_builtins(row, builtin_types=(bytes,)))
    return row


def get_upload(
    conn: Connection, account_id: str, upload_id: str, token_id: str | None = None, *, lock: bool = False
) -> UploadRow:
    """An upload of this account, and of this token where a token asks; `not_found` otherwise."""
    statement = _GET.with_for_update() if lock else _GET
    row = conn.execute(statement, {"upload": upload_id, "account": account_id}).one_or_none()
    if row is None or row.token_id != token_id:
        raise LatticeError("not_found", "There is no upload with that id.")
    return UploadRow(*row)


def mark_part(conn: Connection, account_id: str, upload_id: str, part: int) -> UploadRow:
    """Note that a part's bytes are in the file."""
    row = conn.execute(_GET.with_for_update(), {"upload": upload_id, "account": account_id}).one()
    received = bytearray(row.received)
    received[part // 8] |= 1 << part % 8
    conn.execute(_MARK, {"upload": upload_id, "parts": bytes(received)})
    return msgspec.structs.replace(UploadRow(*row), received=bytes(received))


def open_uploads(conn: Connection) -> set[str]:
    """Those that still take parts: only they have files of their own."""
    return set(conn.execute(_OPEN).scalars())


def end_upload(conn: Connection, upload_id: str, state: UploadState, now_ms: int) -> None:
    """It is complete, or it failed; changes nothing where it ended before."""
    conn.execute(_END, {"upload": upload_id, "end": state, "until": now_ms + KEEP_MS})


def complete_upload(
    conn: Connection, account_id: str, upload_id: str, kinds: tuple[UploadKind, ...], token_id: str | None = None
) -> UploadRow:
    """A complete upload of one of these kinds, to be used; raises `not_found`, `upload_incomplete`."""
    row = get_upload(conn, account_id, upload_id, token_id)
    if row.kind not in kinds:
        raise LatticeError("invalid_request", f"The upload is of kind {row.kind}; {' or '.join(kinds)} is needed.")
    if row.state != "complete":
        raise LatticeError("upload_incomplete" if row.state == "open" else "upload_expired")
    return row


def expire_uploads(conn: Connection, now_ms: int) -> list[str]:
    """End what was not completed in time and forget what ended long ago; the ids whose files are to go."""
    overdue = list(conn.execute(_OVERDUE, {"now": now_ms}).scalars())
    for upload_id in overdue:
        end_upload(conn, upload_id, "expired", now_ms)
    conn.execute(_FORGET, {"now": now_ms})
    return overdue
