from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")
answer = client.chat.completions.create(
    model="lattice:personal:lat_…", messages=[{"role": "user", "content": "What is two and two?"}]
)
print(answer.choices[0].message.content)
