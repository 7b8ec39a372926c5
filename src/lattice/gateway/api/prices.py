"""`/v1/prices`: the catalogue of hosted models, as the operator keeps it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path
from fastapi.responses import JSONResponse
from pydantic import Field

from lattice.gateway.api.access import caller
from lattice.gateway.api.state import ApiState
from lattice.gateway.api.views import Body
from lattice.gateway.identity import KeyRecord, Scope
from lattice.gateway.ledger import Price, list_prices, put_price

MAX_PRICE_MICRO = 10**12

Micro = Annotated[int, Field(ge=0, le=MAX_PRICE_MICRO, strict=True)]
Model = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]


class PriceBody(Body):
    """`PUT /v1/prices/{model}`, in micro-credits per million tokens."""

    input_micro_per_million: Micro
    output_micro_per_million: Micro
    default_max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1024
    context: Annotated[int, Field(ge=1, strict=True)] | None = None


def router(state: ApiState) -> APIRouter:
    """The price routes."""
    api = APIRouter(tags=["prices"])
    reader, admin = caller(state, Scope.CATALOG_READ), caller(state, Scope.ADMIN)

    @api.get("/v1/prices")
    async def read_prices(record: KeyRecord = Depends(reader)) -> JSONResponse:
        """The catalogue with its prices."""
        prices = await state.store.read(list_prices)
        return JSONResponse({"data": [msgspec.to_builtins(price) for price in prices], "next_cursor": None})

    @api.put("/v1/prices/{model:path}")
    async def set_price(model: Model, body: PriceBody, record: KeyRecord = Depends(admin)) -> JSONResponse:
        """Add a model or change its price; work that was admitted before keeps the price it was admitted at."""
        price = Price(model, **body.model_dump())
        await state.store.write(put_price, price)
        return JSONResponse(msgspec.to_builtins(price))

    return api
