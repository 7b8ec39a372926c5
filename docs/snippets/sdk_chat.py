from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    answer = client.chat_complete_for_personal_runtime(
        "lat_…", messages=[{"role": "user", "content": "What is two and two?"}], max_tokens=64
    )
    print(answer.text)
    print(answer.sealing, answer.usage)
    receipt = answer.receipt
    print("receipt verified:", receipt.verified, "model digest:", receipt.receipt.model_digest)
