from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    machine = client.create_personal_runtime("laptop")
    print(machine.id)
    print(client.bootstrap_personal_runtime(machine.id))  # for `lattice-ctl relay connect`, within ten minutes
