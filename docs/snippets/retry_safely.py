from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")


def ask() -> str:
    raw = client.chat.completions.with_raw_response.create(
        model="lattice:personal:lat_…",
        messages=[{"role": "user", "content": "What is two and two?"}],
        extra_headers={"idempotency-key": "invoice-4711"},  # your own name for this request
    )
    replayed = raw.headers.get("x-lattice-replayed") == "true"
    return f"{raw.parse().choices[0].message.content} (replayed: {replayed})"


print(ask())
print(ask())
