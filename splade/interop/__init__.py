"""Other systems' formats, one file per system."""
