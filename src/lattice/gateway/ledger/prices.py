"""The catalogue's price table, and the arithmetic of holds and charges (pure)."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select

from lattice.core.money import MicroCredits, token_cost
from lattice.gateway.store.schema import prices

PAD_BYTES = 256

_GET = select(prices).where(prices.c.model == bindparam("the_model"))
_LIST = select(prices).order_by(prices.c.model)
_DELETE = delete(prices).where(prices.c.model == bindparam("the_model"))
_INSERT = insert(prices)


class Price(msgspec.Struct, frozen=True):
    """What a catalogue model costs, in micro-credits per million tokens, and the output ceiling where none is asked."""

    model: str
    input_micro_per_million: int
    output_micro_per_million: int
    default_max_output_tokens: int
    context: int | None = None


def put_price(conn: Connection, price: Price) -> None:
    """Set a model's price; work that was admitted before keeps the price that its caller computed."""
    conn.execute(_DELETE, {"the_model": price.model})
    conn.execute(_INSERT, msgspec.to_builtins(price))


def get_price(conn: Connection, model: str) -> Price | None:
    """A model's price, None for one that is not in the catalogue."""
    row = conn.execute(_GET, {"the_model": model}).mappings().one_or_none()
    return None if row is None else Price(**row)


def list_prices(conn: Connection) -> list[Price]:
    """The catalogue, by model id."""
    return [Price(**row) for row in conn.execute(_LIST).mappings()]


def padded_bytes(body_bytes: int) -> int:
    """An upper bound for a request's prompt tokens: its bytes, with room for the model's own template."""
    return (body_bytes // PAD_BYTES + 2) * PAD_BYTES


def hold_amount(price: Price, body_bytes: int, max_output_tokens: int, choices: int = 1) -> MicroCredits:
    """The most that a request may cost."""
    return cost(price, padded_bytes(body_bytes), choices * max_output_tokens)


def cost(price: Price, prompt_tokens: int, completion_tokens: int) -> MicroCredits:
    """What an answer costs. For a stream that broke off, pass the completion tokens last delivered."""
    return MicroCredits(
        token_cost(prompt_tokens, price.input_micro_per_million)
        + token_cost(completion_tokens, price.output_micro_per_million)
    )
