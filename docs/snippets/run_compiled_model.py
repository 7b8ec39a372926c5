import os

import numpy as np

from lattice.fhe import artefact
from lattice.fhe.run import Blinding, client_keys, decrypt, encrypt, evaluate, prepare

data = np.load("tumours.npz")

# The provider sends clients the beginning of the file: no program, no weights.
sent = artefact.client_bytes("tumours.lattice")

# A client makes keys and encrypts. The secret stays here.
view = artefact.client_view(sent)
keys = client_keys(view)
query = encrypt(view.client, view.params, keys.secret, data["x"][:1])

# A worker has the file and the client's public keys.
prepared = prepare(artefact.load("tumours.lattice"))
blinding = Blinding(provider_secret=os.urandom(32), request_hash=os.urandom(32))
results = evaluate(prepared, keys.evaluation, keys.public, query, blinding)

# The client decrypts.
answer = decrypt(view.client, view.params, keys.secret, results, 1)
print("predicted", answer.labels[0], "truth", data["y"][0])
