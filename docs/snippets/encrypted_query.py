import numpy as np

from lattice import QueryClient

digits = np.load("examples/models/mnist_mlp/digits.npz")
with QueryClient("eut_…", base_url="http://127.0.0.1:8787") as client:
    client.keys.ensure()  # the first time: makes keys here, uploads those that are public
    answer = client.query(digits["x"][:5])  # encrypts here, asks, checks the receipt, decrypts here
print("decrypted", *answer.labels, "truth", *digits["y"][:5])
