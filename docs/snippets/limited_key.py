from lattice import ComputeClient
from lattice.client.management import ManagementClient

with ManagementClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as owner:
    made = owner.create_key(
        "notebook",
        scopes=["lattice:compute:inference"],
        allowed_models=["lattice:personal:lat_…"],
        spend_cap_micro=2_500_000,  # 2.5 credits
        requests_per_minute=60,
    )

with ComputeClient(base_url="http://127.0.0.1:8787", api_key=made["secret"]) as client:
    own = client.key()
    print(own["name"], own["scopes"], own["spend_cap_micro"], own["spent_micro"])
