"""MNIST, a perceptron with squares."""
