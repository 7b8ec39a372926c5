from lattice import ComputeClient, LatticeError

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    try:
        client.chat_complete("lattice:no-such-model", messages=[{"role": "user", "content": "What is two and two?"}])
    except LatticeError as error:
        print(error.code, error.request_id)
        print(error.message)
        print(error.spec.remedy)
