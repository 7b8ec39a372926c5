"""A link: sessions, batches, slots and queue, and what is handed out again when a daemon comes back."""

from __future__ import annotations

import asyncio

import pytest

from lattice.core.errors import LatticeError
from lattice.core.relay import LEASE_MS, REACHABLE_MS, Announcement, ModelOffer
from lattice.gateway.relay.link import DROPPED_GRACE_MS, MAX_BATCH, MAX_BATCH_BYTES, MAX_SESSIONS, Link
from tests.unit.gateway.relay.conftest import NOW, MakeWork, frame, hand_over, poll


def batch(link: Link) -> list[tuple[str, int]]:
    """What the next reply hands over."""
    reply = link.reply(NOW, None, False)
    return [(work.work_id, work.attempt) for work in reply.works]


# --- reachable -----------------------------------------------------------------------------------------------------


def test_a_runtime_is_reachable_for_a_while_after_its_last_poll(link: Link) -> None:
    assert link.reachable(NOW + REACHABLE_MS - 1)
    assert not link.reachable(NOW + REACHABLE_MS)
    assert link.gone(NOW + REACHABLE_MS)


async def test_an_open_poll_is_reachable_however_long(link: Link) -> None:
    holding = asyncio.create_task(link.wait("s1", 10))
    await asyncio.sleep(0)
    assert link.reachable(NOW + 10 * REACHABLE_MS)
    assert not link.gone(NOW + 10 * REACHABLE_MS)
    link.wake()
    await holding


def test_a_broken_connection_has_a_short_grace(link: Link) -> None:
    link.poll_ended(NOW, dropped=True)
    assert link.reachable(NOW + DROPPED_GRACE_MS - 1)
    assert not link.reachable(NOW + DROPPED_GRACE_MS)
    assert link.gone(NOW + DROPPED_GRACE_MS)


def test_a_draining_daemon_gets_nothing_new(link: Link) -> None:
    link.open_poll(poll("s1", ack=1, draining=True), NOW)
    assert not link.reachable(NOW)


def test_a_closed_link_is_not_reachable(link: Link) -> None:
    link.close()
    assert not link.reachable(NOW)
    assert not link.sessions


# --- sessions ------------------------------------------------------------------------------------------------------


def test_a_lost_reply_is_handed_over_again(link: Link, make_work: MakeWork) -> None:
    """The poller was killed, or its connection broke, with work that it never saw."""
    work = make_work()
    hand_over(link, work)
    assert batch(link) == [("work_1", 1)]
    assert link.open_poll(poll("s2"), NOW) == []
    assert batch(link) == [("work_1", 1)]


def test_an_acknowledged_reply_is_not_handed_over_again(link: Link, make_work: MakeWork) -> None:
    work = make_work()
    hand_over(link, work)
    reply = link.reply(NOW, None, False)
    link.open_poll(poll("s1", ack=reply.seq), NOW)
    link.open_poll(poll("s2"), NOW)
    assert batch(link) == []


def test_a_poll_that_acknowledges_less_gets_its_work_again(link: Link, make_work: MakeWork) -> None:
    """In the same session: the daemon says itself that it has not seen the last reply."""
    hand_over(link, make_work())
    batch(link)
    link.open_poll(poll("s1", ack=0), NOW)
    assert batch(link) == [("work_1", 1)]


def test_work_that_has_answered_is_not_handed_over_again(link: Link, make_work: MakeWork) -> None:
    """A frame proves that the daemon has the work, whatever it acknowledged."""
    work = make_work()
    hand_over(link, work)
    batch(link)
    work.push(frame(work, 0))
    link.open_poll(poll("s2"), NOW)
    assert batch(link) == []


def test_a_cancel_in_a_lost_reply_is_repeated(link: Link, make_work: MakeWork) -> None:
    work = make_work()
    hand_over(link, work)
    link.open_poll(poll("s1", ack=link.reply(NOW, None, False).seq), NOW)
    link.cancel(work)
    assert link.reply(NOW, None, False).cancels == (work.ref,)
    link.open_poll(poll("s2"), NOW)
    assert link.reply(NOW, None, False).cancels == (work.ref,)


def test_a_restarted_daemon_has_lost_what_the_old_process_ran(link: Link, make_work: MakeWork) -> None:
    running, unseen = make_work(), make_work()
    hand_over(link, running)
    link.open_poll(poll("s1", ack=link.reply(NOW, None, False).seq), NOW)
    hand_over(link, unseen)
    assert link.open_poll(poll("s2", instance="i2"), NOW) == [running]
    assert "s1" not in link.sessions


def test_a_reconnected_daemon_keeps_what_it_runs(link: Link, make_work: MakeWork) -> None:
    work = make_work()
    hand_over(link, work)
    link.open_poll(poll("s1", ack=link.reply(NOW, None, False).seq), NOW)
    assert link.open_poll(poll("s2"), NOW) == []
    assert {"s1", "s2"} <= set(link.sessions)
    assert link.current(work.work_id, 1) is work


def test_sessions_are_not_remembered_without_bound(link: Link) -> None:
    """A machine that reconnects for months, or all the time on purpose, does not fill the gateway's memory."""
    for number in range(3 * MAX_SESSIONS):
        link.open_poll(poll(f"n{number}"), NOW)
    assert len(link.sessions) == MAX_SESSIONS
    assert f"n{3 * MAX_SESSIONS - 1}" in link.sessions


async def test_a_newer_poll_ends_the_older_one(link: Link) -> None:
    older = asyncio.create_task(link.wait("s1", 10))
    await asyncio.sleep(0)
    link.open_poll(poll("s2"), NOW)
    await asyncio.wait_for(older, 1)
    assert link.session == "s2"


async def test_a_held_poll_is_woken_by_work(link: Link, make_work: MakeWork) -> None:
    holding = asyncio.create_task(link.wait("s1", 10))
    await asyncio.sleep(0)
    hand_over(link, make_work())
    await asyncio.wait_for(holding, 1)
    assert link.has_news


async def test_a_poll_of_an_old_session_does_not_wait(link: Link) -> None:
    link.open_poll(poll("s2"), NOW)
    await asyncio.wait_for(link.wait("s1", 10), 1)


# --- slots and queue -----------------------------------------------------------------------------------------------


def test_works_beyond_the_slots_queue_and_the_queue_is_bounded(link: Link, make_work: MakeWork) -> None:
    works = [make_work() for _ in range(4)]
    hand_over(link, *works)
    assert [work.state for work in works] == ["leased", "leased", "queued", "queued"]
    with pytest.raises(LatticeError) as refused:
        link.admit(make_work(), NOW)
    assert (refused.value.code, refused.value.retry_after_ms) == ("queue_full", 2_000)
    assert link.load == 2


def test_a_free_slot_goes_to_who_waited_longest(link: Link, make_work: MakeWork) -> None:
    works = [make_work() for _ in range(4)]
    hand_over(link, *works)
    assert link.promote(NOW) == []
    link.end(works[0])
    assert link.promote(NOW) == [works[2]]
    assert works[2].lease_expires_ms == NOW + LEASE_MS


def test_a_queued_work_can_leave_the_queue(link: Link, make_work: MakeWork) -> None:
    works = [make_work() for _ in range(3)]
    hand_over(link, *works)
    link.end(works[2])
    link.end(works[0])
    assert link.promote(NOW) == []


def test_an_ended_work_is_not_handed_over(link: Link, make_work: MakeWork) -> None:
    work = make_work()
    hand_over(link, work)
    link.end(work)
    assert batch(link) == []


def test_a_cancelled_work_is_not_handed_over(link: Link, make_work: MakeWork) -> None:
    """Its caller left while it waited for a poll: a machine must not compute an answer for nobody."""
    work = make_work()
    hand_over(link, work)
    work.cancel()
    link.cancel(work)
    reply = link.reply(NOW, None, False)
    assert (reply.works, reply.cancels) == ((), ())


def test_a_batch_fits_what_a_daemon_reads(link: Link, make_work: MakeWork) -> None:
    """Two envelopes of almost the largest size in one reply would be refused by the daemon, again and again."""
    big = [make_work(bytes(MAX_BATCH_BYTES - 1)), make_work(bytes(MAX_BATCH_BYTES - 1))]
    hand_over(link, *big)
    assert batch(link) == [("work_1", 1)]
    assert link.has_news
    assert batch(link) == [("work_2", 1)]


def test_a_batch_is_bounded_in_number(make_work: MakeWork, link: Link) -> None:
    link.concurrency = 2 * MAX_BATCH
    hand_over(link, *[make_work() for _ in range(MAX_BATCH + 1)])
    assert len(batch(link)) == MAX_BATCH
    assert len(batch(link)) == 1


def test_only_the_current_attempt_is_current(link: Link, make_work: MakeWork) -> None:
    work = make_work()
    hand_over(link, work)
    assert link.current(work.work_id, 1) is work
    assert link.current(work.work_id, 2) is None
    assert link.current("work_unknown", 1) is None
    work.state = "queued"  # on its way to another attempt
    assert link.current(work.work_id, 1) is None


def test_concurrency_is_at_least_one(link: Link) -> None:
    link.announce(Announcement((), (), concurrency=-5), None, b"")
    assert link.concurrency == 1


# --- models --------------------------------------------------------------------------------------------------------


def test_the_first_offer_for_the_task_is_the_default(link: Link) -> None:
    offers = (ModelOffer("e", ("embeddings",)), ModelOffer("a"), ModelOffer("b"))
    link.announce(Announcement((), offers), None, b"")
    assert link.offer(None, "chat") == offers[1]
    assert link.offer("b", "chat") == offers[2]
    assert link.offer(None, "embeddings") == offers[0]
    assert link.offer("e", "chat") is None
    assert link.offer("unknown", "chat") is None
