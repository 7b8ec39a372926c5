"""The model server without Lattice: the same answers as the instant runtime, straight over HTTP.

Its figures are the direct path beside which the relay's are printed. Starlette on uvicorn, uvloop and httptools: the
gateway's own stack, so that the difference is what Lattice adds.
"""

from __future__ import annotations

import argparse

import uvicorn
from starlette.types import Receive, Scope, Send

from benchmarks.instant_runtime import TOKENS, final_event, token_event, whole_answer
from lattice.core.chat import parse_shape


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a chat request, streamed or whole."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if parse_shape(body).stream:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for _ in range(TOKENS - 1):
            await send({"type": "http.response.body", "body": token_event(), "more_body": True})
        last = token_event() + final_event() + b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": last})
        return
    answer = whole_answer()
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": answer})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    uvicorn.run(
        app, port=given.port, loop="uvloop", http="httptools", lifespan="off", log_config=None, access_log=False
    )


if __name__ == "__main__":
    main()
