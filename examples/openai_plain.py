"""OpenAI's own SDK, unmodified. The gateway seals the request for the machine, so it sees the plaintext meanwhile.

Needs LATTICE_BASE_URL, LATTICE_API_KEY and LATTICE_RUNTIME (the machine's id).
"""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["LATTICE_BASE_URL"] + "/v1", api_key=os.environ["LATTICE_API_KEY"])
stream = client.chat.completions.create(
    model=f"lattice:personal:{os.environ['LATTICE_RUNTIME']}",
    messages=[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
    max_tokens=48,
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
