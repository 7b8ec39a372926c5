from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8411/v1", api_key="unused")
model = client.models.list().data[0].id
answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "What is two and two?"}])
print(answer.choices[0].message.content)
