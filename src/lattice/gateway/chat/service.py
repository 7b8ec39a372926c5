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
from lattice.core.money import MicroCredits, token_cost
from lattice.core.relay import LEASE_MS, ResultFrame
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.idempotency import Claim
from lattice.gateway.ledger.admission import Admission, admit
from lattice.gateway.ledger.settlement import Settlement, settle, settle_partial, void
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.routing import Route
from lattice.gateway.store.database import Store
from lattice.sealing.envelope import Envelope
from lattice.sealing.receipt import Receipt, SignedReceipt, verify_receipt

_log = structlog.get_logger("lattice.gateway.works")

INPUT_PAD = 256
"""Holds count request bytes rounded up to this, so that a bill says little about a prompt's exact length."""


@dataclass(slots=True)
class Ticket:
    """An admitted work with what its ending needs."""

    work: LiveWork
    route: Route
    key: KeyRecord
    envelope: Envelope
    hold_micro: MicroCredits
    input_bytes: int
    delivered_tokens: int = 0


class WorkService:
    """Admits, settles and abandons works."""

    def __init__(
        self, store: Store, hub: Hub, clock: Clock, metrics: Metrics, gateway_id: str, execution_ms: int
    ) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._metrics = metrics
        self._gateway_id = gateway_id
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
    ) -> Ticket:
        """Reserve a slot, hold the most that the work may cost, make both durable, and hand the work over."""
        header = envelope.parsed
        now = self._clock.now_ms()
        padded = -(-input_bytes // INPUT_PAD) * INPUT_PAD
        hold = self._price(route, padded, choices * header.max_output_tokens)
        work = LiveWork(
            header.work_id, route.link.runtime_id, key.account_id, envelope.encode(), now + self._execution_ms
        )
        if header.work_id in self._hub.works:
            raise LatticeError("idempotency_in_flight", f"{header.work_id} is running.", retry_after_ms=1_000)
        self._hub.reserve(route.link, work)
        try:
            await self._store.write(
                admit,
                Admission(
                    work_id=header.work_id,
                    account_id=key.account_id,
                    key_id=key.id,
                    runtime_id=route.link.runtime_id,
                    gateway_id=self._gateway_id,
                    model=header.model,
                    task=header.task,
                    sealing=sealing,
                    envelope_hash=envelope.envelope_hash,
                    state="in_flight" if work.state == "leased" else "queued",
                    attempt=work.attempt,
                    lease_expires_ms=now + LEASE_MS,
                    deadline_ms=work.deadline_ms,
                    amount_micro=hold,
                    spend_cap_micro=key.spend_cap_micro,
                    claim=claim,
                    now_ms=now,
                ),
            )
        except BaseException:
            self._hub.end(work)
            raise
        self._hub.dispatch(route.link, work)
        return Ticket(work, route, key, envelope, hold, input_bytes)

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
            cost = self._price(ticket.route, usage.prompt_tokens, usage.completion_tokens)
            charged: int = await self._store.write(
                settle,
                Settlement(
                    work_id=ticket.work.work_id,
                    attempt=ticket.work.attempt,
                    cost_micro=cost,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    result=result,
                    status=status,
                    now_ms=self._clock.now_ms(),
                ),
            )
            self._metrics.ended("completed", usage.prompt_tokens, usage.completion_tokens, charged)
            return charged
        finally:
            self._hub.end(ticket.work)

    async def abandon(self, ticket: Ticket, error: BaseException) -> None:
        """End a work that gave no verified result: settle the tokens that reached the caller, void the rest."""
        code = error.code if isinstance(error, LatticeError) else "work_cancelled"
        state = "cancelled" if code == "work_cancelled" else "expired" if "timeout" in code else "failed"
        now = self._clock.now_ms()
        work_id, attempt = ticket.work.work_id, ticket.work.attempt
        try:
            if ticket.delivered_tokens:
                tokens = ticket.delivered_tokens
                # The input is priced by its bytes' upper bound only in the hold; four bytes a token is the estimate
                # where the runtime died before it could count, and settle_partial never exceeds the hold.
                prompt = -(-ticket.input_bytes // 4)
                await self._store.write(
                    settle_partial,
                    Settlement(
                        work_id=work_id,
                        attempt=attempt,
                        cost_micro=self._price(ticket.route, prompt, tokens),
                        prompt_tokens=prompt,
                        completion_tokens=tokens,
                        result=None,
                        status=0,
                        now_ms=now,
                    ),
                    state=state,
                    reason=code,
                )
            else:
                await self._store.write(void, work_id, state=state, reason=code, now_ms=now)
            self._metrics.ended(state)
        except LatticeError as failure:
            # The reaper or the next start voids it; the caller's own error matters more than this one.
            _log.warning("abandon_failed", work_id=work_id, code=failure.code)
        finally:
            self._hub.end(ticket.work)

    def _price(self, route: Route, prompt: int, completion: int) -> MicroCredits:
        if route.price is None:
            return MicroCredits(0)
        price = route.price
        return MicroCredits(
            token_cost(prompt, price.input_micro_per_million) + token_cost(completion, price.output_micro_per_million)
        )
