from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")
stream = client.chat.completions.create(
    model="lattice:personal:lat_…", messages=[{"role": "user", "content": "What is two and two?"}], stream=True
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
