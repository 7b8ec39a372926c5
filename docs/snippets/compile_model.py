import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lattice.fhe import artefact
from lattice.fhe.compiler.compile import compile

x, y = load_breast_cancer(return_X_y=True)
train, test, train_labels, test_labels = train_test_split(x, y, random_state=0)
model = make_pipeline(StandardScaler(), MLPClassifier((16,), alpha=1, max_iter=500, random_state=0))
model.fit(train, train_labels)

compiled = compile(model, train, held_out=test, labels=test_labels)
artefact.save(compiled, "tumours.lattice")

accuracy, sizes = compiled.report["accuracy"], compiled.report["bytes"]
print(f"in the clear {accuracy['clear']:.3f}, encrypted {accuracy['simulated']:.3f} of {accuracy['samples']} right")
print(f"keys {sizes['keys'] / 1e6:.1f} MB, query {sizes['input'] / 1e3:.0f} KB")
np.savez("tumours.npz", x=test, y=test_labels)
