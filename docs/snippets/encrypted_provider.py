from lattice import ManagementClient

with ManagementClient("http://127.0.0.1:8787", "sk_lat_…") as provider:
    provider.create_encrypted_model("digits", weights_exposure="hosted")
    version = provider.upload_model("digits", "mnist.lattice")["version"]
    provider.wait_ready("digits", version)
    token = provider.tokens.create("digits", "phone", user="bob")  # its secret is shown this once
    with provider.workers.running("digits") as (worker,):  # stopped after the block, whatever happens in it
        print(worker["id"], "is", worker["state"])
    ended = provider.workers.get(worker["id"])
    print("it ran for", ended["billed_ms"], "ms and cost", ended["billed_micro"], "micro-credits")
