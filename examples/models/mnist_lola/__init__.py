"""MNIST, the small CNN of LoLA."""
