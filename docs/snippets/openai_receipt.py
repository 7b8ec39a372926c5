import httpx2
from openai import OpenAI

from lattice import SealedTransport

client = OpenAI(
    base_url="http://127.0.0.1:8787/v1",
    api_key="sk_lat_…",
    http_client=httpx2.Client(transport=SealedTransport()),
)
raw = client.chat.completions.with_raw_response.create(
    model="lattice:personal:lat_…", messages=[{"role": "user", "content": "What is two and two?"}]
)
print(raw.parse().choices[0].message.content)
provenance = raw.http_response.extensions["lattice"]
print(provenance.sealing, "receipt verified:", provenance.receipt.verified)
