"""Similarity search in 50,000 vectors."""
