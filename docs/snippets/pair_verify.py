from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    machine = client.verify_pairing("lat_…")  # raises pairing_invalid where the proof is missing or wrong
    print(machine.trust, machine.words)
