from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    words = "pozaf-pavuk-rikus-hasus-mopoh-zotuv"  # read off the machine's own screen: `lattice-ctl status`
    machine = client.confirm_fingerprint("lat_…", words)
    print(machine.trust)
