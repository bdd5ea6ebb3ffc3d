"""Files on disk: written whole or not at all, arrays that open by memory-mapping, caches, lines by number and id."""
