"""Breast cancer, logistic regression."""
