"""Admission and settlement: the two transactions between which a work lives, and the bookkeeping around them.

Every admitted work ends in exactly one of `settle` (the runtime's receipt verified), `abandon` (failed, timed out or
cancelled; what the caller got is settled, the rest voided). Both free the work's slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from lattice.core.chat import Usage
from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.relay import LEASE_MS, ResultFrame
from lattice.gateway.idempotency import Claim, StoredReply
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.ledger import (
    Admission,
    Ending,
    Price,
    Settlement,
    admit,
    cost,
    hold_amount,
    settle,
    settle_partial,
    void,
)
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.routing import Route
from lattice.gateway.store.database import Store
from lattice.gateway.works.records import EndState
from lattice.sealing.envelope import MAX_ENVELOPE_BYTES, Envelope
from lattice.sealing.receipt import Receipt, SignedReceipt, verify_receipt

_log = structlog.get_logger("lattice.gateway.works")

_END_STATES: dict[str, EndState] = {
    "work_cancelled": "cancelled",
    "personal_lattice_execution_timeout": "expired",
}
_NEVER_CHARGED = frozenset({"reply_invalid", "receipt_invalid"})
"""A machine that lies about its answer is not paid for the part of it that went out before."""


@dataclass(slots=True)
class Ticket:
    """An admitted work with what its ending needs."""

    work: LiveWork
    route: Route
    key: KeyRecord
    envelope: Envelope
    input_bytes: int
    claim: Claim | None = None
    delivered_tokens: int = 0


class WorkService:
    """Admits, settles and abandons works."""

    def __init__(self, store: Store, hub: Hub, clock: Clock, metrics: Metrics, execution_ms: int) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._execution_ms = execution_ms

    async def admit(
        self,
        key: KeyRecord,
        route: Route,
        envelope: Envelope,
        *,
        sealing: str,
        input_bytes: int,
        choices: int,
        claim: Claim | None = None,
    ) -> Ticket | StoredReply:
        """Reserve a slot, hold the most that the work may cost, make both durable, and hand the work over.

        Where the idempotency key has an answer already, that is returned and nothing runs.
        """
        header = envelope.parsed
        now = self._clock.now_ms()
        encoded = envelope.encode()
        running = self._hub.works.get(header.work_id)
        if running is not None and running.envelope != encoded:
            raise LatticeError("idempotency_conflict", "The work id is in use for other work.")
        if running is not None:
            raise LatticeError("idempotency_in_flight", f"{header.work_id} is running.", retry_after_ms=1_000)
        if len(encoded) > MAX_ENVELOPE_BYTES:
            raise LatticeError("body_too_large", f"Sealed work has at most {MAX_ENVELOPE_BYTES} bytes.")
        work = LiveWork(header.work_id, route.link.runtime_id, key.account_id, encoded, now + self._execution_ms)
        self._hub.reserve(route.link, work)
        leased = work.state == "leased"
        admission = Admission(
            work_id=header.work_id,
            account_id=key.account_id,
            key_id=key.id,
            runtime_id=route.link.runtime_id,
            gateway_id=self._hub.gateway_id,
            model=header.model,
            task=header.task,
            sealing=sealing,
            envelope_hash=envelope.envelope_hash,
            amount_micro=hold_micro(route.price, input_bytes, choices * header.max_output_tokens),
            leased=leased,
            lease_expires_ms=now + LEASE_MS,
            deadline_ms=work.deadline_ms,
            spend_cap_micro=key.spend_cap_micro,
            claim=claim,
            now_ms=now,
        )
        try:
            admitted = await self._store.write(admit, admission)
        except BaseException:
            self._hub.end(work)
            raise
        if admitted.replay is not None:
            self._hub.end(work)
            return admitted.replay
        if leased:
            work.begin_attempt(admitted.attempt)
            self._hub.dispatch(route.link, work)
        return Ticket(work, route, key, envelope, input_bytes, claim)

    def verify(self, ticket: Ticket, frame: ResultFrame, frames_hash: bytes) -> Receipt:
        """Check the receipt that came with the final frame against the machine's key, the work and its frames."""
        if frame.receipt is None:
            raise LatticeError("receipt_invalid", "The final frame came without a receipt.")
        return verify_receipt(
            SignedReceipt.decode(frame.receipt),
            ticket.route.link.identity,
            envelope_hash=ticket.envelope.envelope_hash,
            frames_hash=frames_hash,
            attempt=frame.attempt,
        )

    async def settle(self, ticket: Ticket, usage: Usage, result: bytes | None = None, status: int = 200) -> int:
        """Charge what the verified receipt says, never more than the hold. Returns the micro-credits charged."""
        try:
            settled = await self._store.write(settle, self._settlement(ticket, usage, result, status))
        finally:
            self._hub.end(ticket.work)
        self._metrics.ended("completed", usage.prompt_tokens, usage.completion_tokens, settled.charged_micro)
        return settled.charged_micro

    async def abandon(self, ticket: Ticket, error: BaseException) -> None:
        """End a work that gave no verified result: settle the tokens that reached the caller, void the rest."""
        code = error.code if isinstance(error, LatticeError) else "work_cancelled"
        state = _END_STATES.get(code, "failed")
        try:
            if ticket.delivered_tokens and code not in _NEVER_CHARGED:
                # Nobody counted the prompt of a broken stream; four bytes a token is the usual ratio.
                usage = Usage(-(-ticket.input_bytes // 4), ticket.delivered_tokens)
                settled = await self._store.write(settle_partial, self._settlement(ticket, usage, None, 0), state, code)
                self._metrics.ended(state, usage.prompt_tokens, usage.completion_tokens, settled.charged_micro)
            else:
                await self._void(ticket.work, state, code)
                self._metrics.ended(state)
        except LatticeError as failure:
            # The reaper or the next start voids it; the caller's own error matters more than this one.
            _log.warning("abandon_failed", work_id=ticket.work.work_id, code=failure.code)
        finally:
            self._hub.end(ticket.work)

    async def _void(self, work: LiveWork, state: EndState, code: str) -> None:
        attempt = -1
        while attempt != work.attempt:  # another attempt may have been leased while this one was being ended
            attempt = work.attempt
            ending = Ending(
                work_id=work.work_id, attempt=attempt, state=state, reason=code, now_ms=self._clock.now_ms()
            )
            if await self._store.write(void, ending):
                return

    def _settlement(self, ticket: Ticket, usage: Usage, result: bytes | None, status: int) -> Settlement:
        price = ticket.route.price
        return Settlement(
            work_id=ticket.work.work_id,
            attempt=ticket.work.attempt,
            cost_micro=0 if price is None else cost(price, usage.prompt_tokens, usage.completion_tokens),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            claim=ticket.claim,
            result=result,
            status=status,
            now_ms=self._clock.now_ms(),
        )


def hold_micro(price: Price | None, input_bytes: int, output_tokens: int) -> int:
    """The most that a work may cost; nothing on the caller's own machine."""
    return 0 if price is None else hold_amount(price, input_bytes, output_tokens)
