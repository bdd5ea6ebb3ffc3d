"""Texts to sparse vectors: tokens, batches, and the encoders that front them."""
