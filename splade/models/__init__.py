"""Models: a sparse head on a masked-language model, pairs of encoders, loading and saving."""
