"""Files of the kinds that users bring, written for a test."""

import gzip


def write_tsv(path, rows):
    """Write one record a line; `.gz` in the name compresses."""
    content = "".join("\t".join(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
