"""Credit scoring, a perceptron with tanh."""
