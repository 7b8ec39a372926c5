"""Circuits over the evaluator: matrix products, polynomials, sums, rotations. Planning is pure and holds no data."""
