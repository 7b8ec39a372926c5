"""A process that pays for work as fast as it can, and says on stdout what the store acknowledged. It is to be killed.

    python -m tests.support.crash_writer <database url>

Lines: `A <work>` once admitted, `S <work>` once settled, each written only after `await store.write` returned.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from lattice.core.ids import Prefix, new_id
from lattice.gateway import ledger
from lattice.gateway.store import Store
from tests.support.ledger import account, admission, settlement


async def work(store: Store, account_id: str) -> None:
    while True:
        now_ms = time.time_ns() // 1_000_000
        request = admission(account_id, 100, work_id=new_id(Prefix.WORK, now_ms), now_ms=now_ms)
        await store.write(ledger.admit, request)
        os.write(1, f"A {request.work_id}\n".encode())
        await store.write(ledger.settle, settlement(request.work_id, 40, now_ms=now_ms))
        os.write(1, f"S {request.work_id}\n".encode())


async def main(url: str) -> None:
    store = await Store.open(url)
    owner = await store.write(account, 10**12)
    await asyncio.gather(*[work(store, owner.id) for _ in range(32)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
