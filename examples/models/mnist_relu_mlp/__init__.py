"""MNIST, a perceptron with ReLU."""
