"""The arithmetic of worker time (pure). Money is a function of whole milliseconds, so rounding never drifts.

`cost` is cumulative: what `b` milliseconds cost after `a` were paid is `cost(b) - cost(a)`, and however the time is cut
into slices the sum is the same.
"""

from __future__ import annotations

import msgspec

SLICE_MS = 10_000
"""Each contact pays this much ahead, as far as the credits reach."""

DRAIN_MS = 5_000
"""The reserve behind the slice, paid for from the start, in which a worker that must stop finishes what runs."""


def cost(milliseconds: int, micro_per_second: int) -> int:
    """What so much time of one session costs, rounded down once."""
    return milliseconds * micro_per_second // 1000


def affordable(budget_micro: int, micro_per_second: int) -> int:
    """The longest time that costs no more than `budget_micro`. Not for a price of zero, which buys any time."""
    return ((budget_micro + 1) * 1000 - 1) // micro_per_second


class Meter(msgspec.Struct, frozen=True):
    """What is known of a worker's time: billed up to `seen_ms`, sold up to `paid_until_ms` and the reserve after it."""

    micro_per_second: int
    billed_ms: int
    seen_ms: int
    paid_until_ms: int

    @property
    def end_ms(self) -> int:
        """No later moment is ever billed."""
        return self.paid_until_ms + DRAIN_MS

    @property
    def billed_micro(self) -> int:
        """What the billed time costs."""
        return cost(self.billed_ms, self.micro_per_second)

    @property
    def held_micro(self) -> int:
        """What the sold time that is not billed yet costs."""
        return cost(self.billed_ms + self.end_ms - self.seen_ms, self.micro_per_second) - self.billed_micro


def begin(billed_ms: int, micro_per_second: int, now_ms: int, available_micro: int) -> Meter | None:
    """Sell a first slice, or what of one the balance covers; None where it covers no more than the reserve."""
    empty = Meter(micro_per_second, billed_ms, now_ms, now_ms - DRAIN_MS)
    meter = extend(empty, now_ms, available_micro)
    return meter if meter.paid_until_ms > now_ms else None


def observe(meter: Meter, now_ms: int) -> Meter:
    """Bill up to now, never past what was sold; a clock that stepped back bills nothing twice."""
    seen = max(meter.seen_ms, min(now_ms, meter.end_ms))
    return msgspec.structs.replace(meter, billed_ms=meter.billed_ms + seen - meter.seen_ms, seen_ms=seen)


def extend(meter: Meter, now_ms: int, available_micro: int) -> Meter:
    """Sell ahead to a whole slice from now, or as far as the balance reaches; what was sold is never taken back.

    `now_ms` counts as at least the moment last seen, so that a clock that stepped back buys no more than a slice.
    """
    wanted = max(meter.paid_until_ms, max(now_ms, meter.seen_ms) + SLICE_MS)
    if meter.micro_per_second:
        budget = available_micro + meter.billed_micro + meter.held_micro
        longest = affordable(budget, meter.micro_per_second) - meter.billed_ms
        wanted = max(meter.paid_until_ms, min(wanted, meter.seen_ms + longest - DRAIN_MS))
    return msgspec.structs.replace(meter, paid_until_ms=wanted)
