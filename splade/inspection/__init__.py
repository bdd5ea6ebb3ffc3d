"""Looking into sparse vectors: bags of words, explanations of a score, figures."""
