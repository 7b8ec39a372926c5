"""One worker's connection: what it is told, once and again, and when a held poll is answered."""

from __future__ import annotations

import asyncio

import msgspec

from lattice.core.worker_relay import WorkerPoll
from lattice.gateway.queries.rows import Leased, QueryRow
from lattice.gateway.workers.link import MAX_SLOTS, WorkerLink
from lattice.gateway.workers.rows import WorkerRow
from tests.support.ledger import NOW, account, memory
from tests.support.workers import new_worker


def worker(state: str = "active") -> WorkerRow:
    with memory() as conn:
        row = new_worker(conn, account(conn).id, 1, NOW)
    return msgspec.structs.replace(row, state=state)


def leased(query: str, attempt: int = 1) -> Leased:
    fields = dict.fromkeys(QueryRow.__struct_fields__)
    row = QueryRow(**fields | {"id": query, "attempt": attempt, "state": "in_flight"})  # type: ignore[arg-type]
    return Leased(row, b"k" * 32, None)


def poll(*running: str, **more: object) -> WorkerPoll:
    return WorkerPoll(session="s", active=True, running=running, **{"concurrency": 2, **more})  # type: ignore[arg-type]


def names(link: WorkerLink) -> list[str]:
    return [each.row.id for each in link.take_news()[0]]


def test_a_lease_is_said_until_the_worker_names_it() -> None:
    link = WorkerLink(worker())
    link.open_session("s", [])
    link.begin(poll(), NOW)
    link.add([leased("a")])
    assert link.free == 1
    assert names(link) == ["a"]
    assert names(link) == []
    link.begin(poll(), NOW)  # the reply was lost
    assert names(link) == ["a"]
    link.begin(poll("a"), NOW)
    assert names(link) == []
    assert not link.has_news


def test_what_the_worker_should_not_have_it_is_told_to_drop() -> None:
    link = WorkerLink(worker())
    link.open_session("s", [leased("a")])
    link.begin(poll("a", "b"), NOW)
    assert link.take_news()[1] == ("b",)
    link.drop("a", NOW, cancel=True)
    link.drop("a", NOW, cancel=True)
    assert link.take_news()[1] == ("a",)


def test_only_an_active_worker_has_room() -> None:
    for state, room in (("active", MAX_SLOTS), ("starting", 0), ("stopping", 0)):
        link = WorkerLink(worker(state))
        link.begin(poll(concurrency=10**9), NOW)
        assert link.free == room
    link.begin(WorkerPoll(session="s"), NOW)
    assert link.free == 0


def test_slots_whose_leases_are_being_written_are_not_free() -> None:
    link = WorkerLink(worker())
    link.open_session("s", [])
    link.begin(poll(), NOW)
    with link.reserve(1):
        assert link.free == 1
        with link.reserve(1):
            assert link.free == 0
            link.add([leased("a")])
            assert link.free == 0
    assert link.free == 1


def test_a_lease_that_waits_behind_others_begins_when_one_of_them_ends() -> None:
    """Two are evaluated at a time and two more wait: the first to wait is the first to begin."""
    link = WorkerLink(worker())
    link.open_session("s", [])
    link.begin(poll(concurrency=4, ahead=2), NOW)
    link.add([leased("a"), leased("b"), leased("c")])
    link.add([leased("d")])
    link.drop("b", NOW + 10)
    assert [link.began_ms(query) for query in "acd"] == [0, NOW + 10, 0]
    link.add([leased("e")])
    link.drop("d", NOW + 20)  # cancelled while it waited: nobody begins for that
    assert link.began_ms("e") == 0
    link.drop("a", NOW + 30)
    assert [link.began_ms(query) for query in "ce"] == [NOW + 10, NOW + 30]
    link.add([leased("f")])
    link.drop("c", NOW + 40)
    link.drop("e", NOW + 50)
    link.add([leased("g")])
    assert [link.began_ms(query) for query in "fg"] == [NOW + 40, 0]


def test_no_worker_has_more_waiting_than_it_takes() -> None:
    link = WorkerLink(worker())
    link.begin(poll(concurrency=2, ahead=10**9), NOW)
    link.add([leased("a"), leased("b")])
    link.drop("a", NOW)
    assert link.began_ms("b") == NOW


def test_an_older_session_is_over_for_good() -> None:
    link = WorkerLink(worker())
    link.open_session("one", [leased("a")])
    link.open_session("two", [])
    assert link.superseded("one")
    assert not link.superseded("two")
    assert not link.has("a", 1)


async def test_a_held_poll_ends_with_news_or_with_the_next_poll() -> None:
    link = WorkerLink(worker())
    turn = link.begin(poll(), NOW)
    held = asyncio.create_task(link.wait(turn, 30))
    await asyncio.sleep(0)
    link.begin(poll(), NOW)
    await asyncio.wait_for(held, 1)
    await asyncio.wait_for(link.wait(turn, 30), 1)  # it is not its turn any more
    held = asyncio.create_task(link.wait(link.turn, 30))
    await asyncio.sleep(0)
    link.wake()
    await asyncio.wait_for(held, 1)


def test_a_stop_is_news_once() -> None:
    link = WorkerLink(worker("stopping"))
    assert link.has_news
    link.told_stop = True
    assert not link.has_news
