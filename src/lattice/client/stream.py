"""Answers that arrive piece by piece. `receipt` and the final `usage` are there once the iteration has ended."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx2

from lattice.client.context import Context
from lattice.client.decoders import Decoder, PlainDecoder, SealedDecoder
from lattice.client.exchange import Answer, Plan
from lattice.client.faults import broken
from lattice.client.inference import open_sealed, plain_provenance, read_sealed, refusal, send_plain
from lattice.client.requests import Ask
from lattice.client.results import Delta, SealingMode, VerifiedReceipt
from lattice.core.chat import Usage


class _Stream:
    """The members that both kinds of stream share."""

    def __init__(self, answer: Answer, decoder: Decoder) -> None:
        self._answer = answer
        self._decoder = decoder
        self._texts: list[str] = []
        self._closed = False
        self.finished = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def sealing(self) -> SealingMode:
        """The mode in which this request travelled."""
        return self._decoder.provenance.sealing

    @property
    def runtime(self) -> str | None:
        """The id of the machine that answers."""
        return self._decoder.provenance.runtime

    @property
    def work_id(self) -> str | None:
        """The id of the unit of work."""
        return self._decoder.provenance.work_id

    @property
    def request_id(self) -> str | None:
        """The gateway's id of the request."""
        return self._decoder.provenance.request_id

    @property
    def usage(self) -> Usage | None:
        """The counted tokens: after the end, and in the mode `gateway` only where `include_usage` was asked for."""
        return self._decoder.provenance.usage

    @property
    def receipt(self) -> VerifiedReceipt | None:
        """The machine's receipt, verified: after the end of an `end_to_end` stream."""
        return self._decoder.provenance.receipt

    def _pulled(self) -> Delta | None:
        delta = self._decoder.pull()
        if delta is not None:
            self._texts.append(delta.text)
        return delta

    def _end(self) -> None:
        self._decoder.finish()
        self.finished = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(work_id={self.work_id!r}, sealing={self.sealing!r}, finished={self.finished})"


class ChatStream(_Stream):
    """Iterate it for deltas. Leaving early (`close`, or the `with` block) cancels the work."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        try:
            while (delta := self._pulled()) is None:
                if self.finished or self._closed:
                    raise StopIteration
                self._advance()
        except BaseException:
            self.close()
            raise
        return delta

    def _advance(self) -> None:
        try:
            chunk = next(self._answer.chunks, b"")
        except httpx2.RequestError as failure:
            raise broken(failure) from failure
        if chunk:
            self._decoder.push(chunk)
        else:
            self._end()

    def close(self) -> None:
        """Give up the rest and free the connection."""
        self._closed = True
        self._answer.response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncChatStream(_Stream):
    """Iterate it with `async for`. Leaving early (`close`, or the `async with` block) cancels the work."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        try:
            while (delta := self._pulled()) is None:
                if self.finished or self._closed:
                    raise StopAsyncIteration
                await self._advance()
        except BaseException:
            await self.close()
            raise
        return delta

    async def _advance(self) -> None:
        try:
            chunk = await anext(self._answer.chunks, b"")
        except httpx2.RequestError as failure:
            raise broken(failure) from failure
        if chunk:
            self._decoder.push(chunk)
        else:
            self._end()

    async def close(self) -> None:
        """Give up the rest and free the connection."""
        self._closed = True
        await self._answer.response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def open_stream(context: Context, ask: Ask) -> Plan[tuple[Answer, Decoder]]:
    """Send a streamed chat. Refusals, also an engine's own, are raised here, before there is a stream."""
    if ask.runtime_id is None:
        answer = yield from send_plain(context, ask)
        return answer, PlainDecoder(plain_provenance(answer))
    reply = yield from open_sealed(context, ask)
    if reply.reader.refused:
        payload = yield from read_sealed(reply)
        raise refusal(reply.reader, payload, reply.provenance)
    return reply.answer, SealedDecoder(reply.reader, reply.provenance)
