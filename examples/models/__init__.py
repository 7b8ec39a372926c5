"""Trained models that run encrypted, one folder each; `README.md` lists them with their accuracy."""
