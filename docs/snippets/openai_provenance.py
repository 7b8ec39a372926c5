from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")
raw = client.chat.completions.with_raw_response.create(
    model="lattice:personal:lat_…", messages=[{"role": "user", "content": "What is two and two?"}]
)
for name in ("x-lattice-runtime", "x-lattice-sealing", "x-lattice-work"):
    print(name, raw.headers[name])
