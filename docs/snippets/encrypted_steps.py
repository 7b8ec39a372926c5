import numpy as np

from lattice import QueryClient

digits = np.load("examples/models/mnist_mlp/digits.npz")
with QueryClient("eut_…", base_url="http://127.0.0.1:8787") as client:
    question = client.encrypt(digits["x"][:1])  # ciphertexts: may go anywhere
    result = client.execute(question)  # ciphertexts, and the worker's signed receipt
    answer = client.decrypt(result)  # only this client's secret can
    print("asked with", len(question.data), "bytes, answered with", len(result.data))
    print("the worker took", result.receipt.milliseconds, "ms and signed for", result.receipt.outputs[:12])
    print("decrypted", answer.labels[0], "truth", digits["y"][0])
