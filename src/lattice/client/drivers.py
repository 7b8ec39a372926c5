"""The two performers of plans, with `httpx2.Client` and with `httpx2.AsyncClient`. All the SDK's waiting is here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import httpx2

from lattice.client.exchange import Answer, Body, Call, Close, Compute, Effect, Pause, Plan
from lattice.client.settings import CONNECT_TIMEOUT_S
from lattice.core.errors import LatticeError

T = TypeVar("T")


def _request(http: httpx2.Client | httpx2.AsyncClient, call: Call, timeout: httpx2.Timeout | None) -> httpx2.Request:
    extra: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    if call.timeout_s is not None:
        extra["timeout"] = httpx2.Timeout(call.timeout_s, connect=min(CONNECT_TIMEOUT_S, call.timeout_s))
    return http.build_request(
        call.method,
        call.path,
        content=call.content,
        headers=dict(call.headers),
        params=dict(call.params) or None,
        **extra,
    )


class Driver:
    """Performs plans with a synchronous client. Answers opened by a plan that fails are closed."""

    def __init__(
        self,
        http: httpx2.Client,
        sleep: Callable[[float], None] = time.sleep,
        timeout: httpx2.Timeout | None = None,
    ) -> None:
        self.http = http
        self._sleep = sleep
        self._timeout = timeout

    def run(self, plan: Plan[T]) -> T:
        """Perform every step and return the plan's result."""
        opened: list[Answer] = []
        try:
            effect = next(plan)
            while True:
                try:
                    outcome = self._perform(effect, opened)
                except (httpx2.RequestError, LatticeError) as failure:
                    effect = plan.throw(failure)
                else:
                    effect = plan.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            plan.close()
            for answer in opened:
                answer.response.close()
            raise

    def _perform(self, effect: Effect, opened: list[Answer]) -> Any:
        if isinstance(effect, Call):
            return self._call(effect, opened)
        if isinstance(effect, Pause):
            return self._sleep(effect.seconds)
        if isinstance(effect, Compute):
            return effect.work()
        if isinstance(effect, Close):
            return effect.answer.response.close()
        return next(effect.answer.chunks, b"")

    def _call(self, call: Call, opened: list[Answer]) -> Answer:
        response = self.http.send(_request(self.http, call, self._timeout), stream=True)
        if call.stream and response.status_code < 300:
            opened.append(answer := Answer(response, chunks=response.iter_bytes()))
            return answer
        body = Body()
        try:
            for chunk in response.iter_bytes():
                body.add(chunk)
        finally:
            response.close()
        return Answer(response, content=body.content)


class AsyncDriver:
    """Performs plans with an asynchronous client. Answers opened by a plan that fails are closed."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timeout: httpx2.Timeout | None = None,
    ) -> None:
        self.http = http
        self._sleep = sleep
        self._timeout = timeout

    async def run(self, plan: Plan[T]) -> T:
        """Perform every step and return the plan's result."""
        opened: list[Answer] = []
        try:
            effect = next(plan)
            while True:
                try:
                    outcome = await self._perform(effect, opened)
                except (httpx2.RequestError, LatticeError) as failure:
                    effect = plan.throw(failure)
                else:
                    effect = plan.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except BaseException:
            plan.close()
            for answer in opened:
                with suppress(Exception):
                    await answer.response.aclose()
            raise

    async def _perform(self, effect: Effect, opened: list[Answer]) -> Any:
        if isinstance(effect, Call):
            return await self._call(effect, opened)
        if isinstance(effect, Pause):
            return await self._sleep(effect.seconds)
        if isinstance(effect, Compute):
            return await asyncio.to_thread(effect.work)
        if isinstance(effect, Close):
            return await effect.answer.response.aclose()
        return await anext(effect.answer.chunks, b"")

    async def _call(self, call: Call, opened: list[Answer]) -> Answer:
        response = await self.http.send(_request(self.http, call, self._timeout), stream=True)
        if call.stream and response.status_code < 300:
            opened.append(answer := Answer(response, chunks=response.aiter_bytes()))
            return answer
        body = Body()
        try:
            async for chunk in response.aiter_bytes():
                body.add(chunk)
        finally:
            await response.aclose()
        return Answer(response, content=body.content)
