"""Keys of the server."""

from dataclasses import dataclass

from splade.config.declare import NOTHING, files_key, key


@dataclass
class ServeConfig:
    """`serve`: where splade.serve listens, and what it allows."""

    others: list[str] | dict[str, str] | None = files_key(
        "further indexes, as a list or {name: folder}; the page and the API choose between them", affects=NOTHING
    )
    host: str = key("address to listen at; other than loopback: requests need a token", "127.0.0.1", affects=NOTHING)
    port: int = key("port to listen at; 0: any that is free", 8000, affects=NOTHING, minimum=0, maximum=65535)
    token: str | None = key(
        "what requests must bring; null: none on loopback, else one is made and shown", affects=NOTHING
    )
    at_once: int = key(
        "requests that are worked on or wait; more are told to come again", 256, affects=NOTHING, minimum=1
    )
    per_second: float = key("requests of one address; 0: any number", 0.0, affects=NOTHING, minimum=0)
    characters: int = key("of a query or a text", 10_000, affects=NOTHING, minimum=1)
    top_k: int = key("most documents of an answer", 1000, affects=NOTHING, minimum=1)
    kept_queries: int = key(
        "so many of the last queries are not encoded when they are asked again; 0: none",
        1000,
        affects=NOTHING,
        minimum=0,
    )
