import openai

client = openai.OpenAI(base_url="http://127.0.0.1:8787/v1", api_key="sk_lat_…")
try:
    client.chat.completions.create(
        model="lattice:personal:lat_…",
        messages=[{"role": "user", "content": "What is two and two?"}],
        extra_headers={"x-lattice-sealing": "end_to_end"},
    )
except openai.UnprocessableEntityError as error:
    print(error.code)  # an unmodified client does not seal, and the gateway never downgrades
