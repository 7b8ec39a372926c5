"""Sentiment, logistic regression on embeddings made by the client."""
