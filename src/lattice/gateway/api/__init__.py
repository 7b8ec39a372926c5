"""Control-plane routes: accounts, keys and money. Each module makes a FastAPI router from an `ApiState`."""

from fastapi import APIRouter

from lattice.gateway.api import accounts, keys, money, prices
from lattice.gateway.api.state import ApiState


def routers(state: ApiState) -> tuple[APIRouter, ...]:
    """Every control-plane router of this package."""
    return accounts.router(state), keys.router(state), money.router(state), prices.router(state)


__all__ = ["ApiState", "routers"]
