from itertools import islice

from lattice import ComputeClient

with ComputeClient(base_url="http://127.0.0.1:8787", api_key="sk_lat_…") as client:
    balance = client.credits()
    print("available", balance["available_micro"], "held", balance["held_micro"])
    for row in islice(client.usage(), 3):
        print(row["model"], row["prompt_tokens"], row["completion_tokens"], row["charged_micro"])
    total = sum(entry["amount_micro"] for entry in client.ledger_entries())
    print("all postings together:", total)
