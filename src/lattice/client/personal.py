"""Plans about runtimes: create, list, pair, verify, revoke, and find one that may be sealed to."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, TypeAlias

from lattice.client.context import Context
from lattice.client.exchange import Plan
from lattice.client.pairing import begin_mint, finish_mint
from lattice.client.pins import assess, confirm, require_sound, require_verified
from lattice.client.records import PersonalRuntime, Trust, runtime_from
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id

Kind: TypeAlias = Literal["personal", "hosted"]
PAGE_LIMIT = 100


def create(context: Context, name: str, kind: Kind = "personal") -> Plan[PersonalRuntime]:
    """Make an unpaired record."""
    data = yield from context.post_json(_path(kind), {"name": name})
    return assess(context.store, context.origin, runtime_from(data), context.now_ms())


def fetch(context: Context, runtime_id: str, kind: Kind = "personal") -> Plan[PersonalRuntime]:
    """One record with this app's `trust`; the two states that mean an attack raise."""
    data = yield from context.get_json(_path(kind, runtime_id))
    record = runtime_from(data)
    if record.id != runtime_id:
        raise LatticeError("gateway_unreachable", "The gateway answered with another runtime than the one asked for.")
    return require_sound(assess(context.store, context.origin, record, context.now_ms()))


def list_all(context: Context, kind: Kind = "personal", reachable_only: bool = False) -> Plan[list[PersonalRuntime]]:
    """Every record of the account, each with this app's `trust`; nothing is raised for a suspicious one."""
    found: list[PersonalRuntime] = []
    cursor: str | None = None
    while True:
        page = yield from context.get_json(_path(kind), limit=PAGE_LIMIT, cursor=cursor)
        now_ms = context.now_ms()
        records = [runtime_from(item) for item in page.get("data", [])]
        found += [assess(context.store, context.origin, record, now_ms) for record in records]
        before, cursor = cursor, page.get("next_cursor")
        if not cursor or cursor == before:
            return [record for record in found if record.reachable or not reachable_only]


def bootstrap(context: Context, runtime_id: str, kind: Kind = "personal") -> Plan[str]:
    """Mint a bootstrap string. The secret is stored before the request, so that a crash loses no pairing."""
    path = _path(kind, runtime_id)
    mint = begin_mint(context.origin, runtime_id, context.store.sender().public, context.now_ms())
    context.store.add_pending(mint.pending)
    try:
        answer = yield from context.post_json(f"{path}/bootstrap-tokens", mint.body)
        return finish_mint(mint, answer)
    except LatticeError as error:
        if error.code != "gateway_unreachable":  # the gateway refused, so no token carries this secret
            context.store.drop_pending(mint.pending)
        raise


def revoke(context: Context, runtime_id: str, kind: Kind = "personal") -> Plan[PersonalRuntime]:
    """Revoke the record and forget its pin."""
    data = yield from context.delete(_path(kind, runtime_id))
    context.store.forget(context.origin, runtime_id)
    context.records.drop(context.origin, runtime_id)
    return runtime_from(data)


def confirm_fingerprint(
    context: Context, runtime_id: str, words: str, kind: Kind = "personal"
) -> Plan[PersonalRuntime]:
    """Pin the identity key that the gateway shows if its words are those that a person read on the machine."""
    data = yield from context.get_json(_path(kind, runtime_id))
    record = runtime_from(data)
    context.records.drop(context.origin, runtime_id)
    confirmed = confirm(context.store, context.origin, record, words, context.now_ms())
    with suppress(LatticeError):  # only so that the gateway's lists say so too; what counts is the pin
        yield from context.post_json(
            f"{_path(kind, runtime_id)}/fingerprint-confirmations", {"fingerprint": record.words}
        )
    return confirmed


def usable(context: Context, runtime_id: str, *, fresh: bool = False) -> Plan[PersonalRuntime]:
    """A record whose identity key this app has verified: the only kind that is sealed to."""
    now_ms = context.now_ms()
    record = None if fresh else context.records.get(context.origin, runtime_id, now_ms)
    if record is None or not _still_pinned(context, record):
        context.records.drop(context.origin, runtime_id)
        record = yield from fetch(context, runtime_id)
        require_verified(record)
        context.records.put(context.origin, record, now_ms)
    return record


def _still_pinned(context: Context, record: PersonalRuntime) -> bool:
    pin = context.store.pin(context.origin, record.id)
    return record.trust is Trust.VERIFIED and pin is not None and pin.identity == record.identity_key


def _path(kind: Kind, runtime_id: str | None = None) -> str:
    if runtime_id is None:
        return f"/{kind}-runtimes"
    if not is_id(Prefix.RUNTIME, runtime_id):
        raise LatticeError(
            "personal_lattice_not_found", "That is not a runtime id: they look like `lat_` and 26 characters."
        )
    return f"/{kind}-runtimes/{runtime_id}"
