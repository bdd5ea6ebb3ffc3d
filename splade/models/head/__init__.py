"""The sparse head: hidden states in, one non-negative weight per vocabulary term out."""
