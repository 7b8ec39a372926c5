"""OpenAI's SDK with our transport: sealed on this machine, opened on yours. The gateway sees ciphertext only.

Needs LATTICE_BASE_URL, LATTICE_API_KEY and LATTICE_RUNTIME (the machine's id). The machine must have been paired from
here, or its fingerprint confirmed here: `lattice runtimes verify`.
"""

import os

import httpx2
from openai import OpenAI

from lattice import SealedTransport

client = OpenAI(
    base_url=os.environ["LATTICE_BASE_URL"] + "/v1",
    api_key=os.environ["LATTICE_API_KEY"],
    http_client=httpx2.Client(transport=SealedTransport()),
)
raw = client.chat.completions.with_raw_response.create(
    model=f"lattice:personal:{os.environ['LATTICE_RUNTIME']}",
    messages=[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    max_tokens=48,
)
print(raw.parse().choices[0].message.content)
print("sealing:", raw.headers["x-lattice-sealing"])
