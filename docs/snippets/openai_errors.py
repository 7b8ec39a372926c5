import openai

client = openai.OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")
try:
    client.chat.completions.create(
        model="lattice:no-such-model", messages=[{"role": "user", "content": "What is two and two?"}]
    )
except openai.APIStatusError as error:
    print(type(error).__name__, error.code, error.request_id)
