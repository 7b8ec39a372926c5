"""Our own SDK: the same, with the machine's signed receipt.

Needs LATTICE_BASE_URL and LATTICE_API_KEY. It asks the first machine that is reachable and that this app trusts.
"""

from lattice import ComputeClient

with ComputeClient() as client:
    machines = [m for m in client.list_reachable_personal_runtimes() if m.trust == "verified"]
    if not machines:
        raise SystemExit("No machine is reachable and verified here: see `lattice runtimes list`.")
    stream = client.chat_stream_for_personal_runtime(
        machines[0].id,
        messages=[{"role": "user", "content": "What is the capital of France? Answer in one sentence."}],
        max_tokens=48,
    )
    for delta in stream:
        print(delta.text, end="", flush=True)
    print()
    receipt = stream.receipt
    print(f"sealing: {stream.sealing}; work {stream.work_id}; {receipt.usage.completion_tokens} tokens, signed")
