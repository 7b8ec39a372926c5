"""MNIST, Orion's LeNet."""
