"""Predicted memory, term by term: weights, KV cache, activation peak, overhead."""
