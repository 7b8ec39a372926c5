"""Packing: from a graph to what happens in the slots or coefficients of ciphertexts."""
