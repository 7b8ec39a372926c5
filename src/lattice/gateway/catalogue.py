"""The models that hosted capacity may serve, with their prices: the price table behind a cache of one second."""

from __future__ import annotations

from lattice.core.clock import SECOND_MS, Clock
from lattice.gateway.ledger import Price, list_prices
from lattice.gateway.store.database import Store

DEFAULT_PRICES = (
    Price(
        "smollm2-135m-instruct",
        input_micro_per_million=20_000,
        output_micro_per_million=60_000,
        default_max_output_tokens=512,
        context=8192,
    ),
)
"""What a new gateway starts with: 0.02 credits per million input tokens and 0.06 per million output tokens."""


class Catalogue:
    """Prices by canonical model id."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._loaded_ms: int | None = None
        self._prices: dict[str, Price] = {}

    async def price(self, model: str) -> Price | None:
        """The model's price, None where the catalogue does not have it."""
        return (await self.prices()).get(model)

    async def prices(self) -> dict[str, Price]:
        """The whole catalogue."""
        now = self._clock.now_ms()
        if self._loaded_ms is None or now - self._loaded_ms >= SECOND_MS:
            self._prices = {price.model: price for price in await self._store.read(list_prices)}
            self._loaded_ms = now
        return self._prices
