"""Work on many machines: what is done to a part of a collection, who does it, and an index that others search."""
