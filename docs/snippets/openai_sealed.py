import httpx2
from openai import OpenAI

from lattice import SealedTransport

client = OpenAI(
    base_url="http://127.0.0.1:8787/v1",
    api_key="sk_lat_…",
    http_client=httpx2.Client(transport=SealedTransport()),  # the one line
)
answer = client.chat.completions.create(
    model="lattice:personal:lat_…", messages=[{"role": "user", "content": "What is two and two?"}]
)
print(answer.choices[0].message.content)
