import asyncio

import httpx2
from openai import AsyncOpenAI

from lattice import AsyncSealedTransport


async def main() -> None:
    http = httpx2.AsyncClient(transport=AsyncSealedTransport())
    async with AsyncOpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…", http_client=http) as client:
        stream = await client.chat.completions.create(
            model="lattice:personal:lat_…",
            messages=[{"role": "user", "content": "What is two and two?"}],
            stream=True,
        )
        async for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


asyncio.run(main())
