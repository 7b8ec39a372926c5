"""The control-plane routes in a bare app, with a client that speaks to it in process."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.gateway.api import routers
from lattice.gateway.api.credentials import presented_secret
from lattice.gateway.api.errors import http_error, invalid_request
from lattice.gateway.identity import KeyCache, KeyRecord, OwnerKey, Pepper, bootstrap_owner
from lattice.gateway.store import Store
from tests.support.ledger import NOW


class State:
    """An `ApiState`."""

    def __init__(self, store: Store, pepper: Pepper) -> None:
        self.store, self.pepper = store, pepper
        self.clock = ManualClock(NOW)
        self.keys = KeyCache(store, pepper, self.clock)

    async def authenticate(self, request: Request) -> KeyRecord:
        return await self.keys.authenticate(presented_secret(request.headers))


class Api:
    """A client with a key."""

    def __init__(self, state: State, app: FastAPI, owner: OwnerKey, secret: str) -> None:
        self.state, self.app, self.owner, self.secret = state, app, owner, secret
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://gateway")

    def as_key(self, secret: str) -> Api:
        """The same gateway, asked with another key."""
        return Api(self.state, self.app, self.owner, secret)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {self.secret}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._http.request(method, path, content=content, headers=sent)
        return answer.status_code, answer.json()

    async def make_key(self, **members: Any) -> Api:
        """A client with a fresh key."""
        status, made = await self.call("POST", "/v1/api-keys", {"name": "app"} | members)
        assert status == 201, made
        return self.as_key(made["secret"])

    async def make_account(self, name: str = "someone") -> str:
        """A new account's id."""
        status, made = await self.call("POST", "/v1/accounts", {"name": name})
        assert status == 201, made
        return str(made["id"])


async def make_api(store: Store, pepper: Pepper) -> Api:
    """The app on an empty store, asked by its owner."""
    state = State(store, pepper)
    app = FastAPI()
    for router in routers(state):
        app.include_router(router)

    @app.exception_handler(LatticeError)
    async def refused(request: Request, error: LatticeError) -> Response:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return await refused(request, invalid_request(error))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        return await refused(request, http_error(error))

    owner = await store.write(bootstrap_owner, pepper, NOW)
    assert owner is not None
    return Api(state, app, owner, owner.secret)
