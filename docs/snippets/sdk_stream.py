from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    stream = client.chat_stream_for_personal_runtime(
        "lat_…", messages=[{"role": "user", "content": "What is two and two?"}]
    )
    for delta in stream:
        print(delta.text, end="", flush=True)
    print()
    print("receipt verified:", stream.receipt.verified)  # there after the last delta
