"""Task: an index on a web page, with an HTTP API."""

import ipaddress
import logging
import secrets
import socket
from functools import partial
from pathlib import Path

from splade.config import Experiment, require
from splade.config.command import report
from splade.errors import ConfigError
from splade.reports.summaries import TaskResult
from splade.tasks.document_texts import texts_of_index
from splade.tasks.launching import open_built_index
from splade.tasks.model_loading import load_model_of_index

logger = logging.getLogger(__name__)

GRACE_SECONDS = 10
MOST_CONNECTIONS = 2000
LARGEST_HEADER = 64 * 1024


def serve(experiment: Experiment) -> TaskResult:
    """Answer searches of config.index_dir over HTTP until stopped."""
    require(experiment, "config.index_dir")
    try:
        import uvicorn

        from splade.server.app import Server, make_app
        from splade.server.requests import Limits
        from splade.server.service import SearchService
    except ImportError as error:
        raise ConfigError(f"splade.serve needs {error.name}: pip install 'splade[serve]'") from error
    keys = experiment.serve
    loopback = is_loopback(keys.host)
    token = keys.token or (None if loopback else secrets.token_urlsafe(24))
    listening = _listen(keys.host, keys.port)
    try:
        model, _ = load_model_of_index(experiment)
        opened = partial(open_built_index, experiment)
        service = SearchService(model, Path(str(experiment.config.index_dir)), opened=opened)
        service.texts = texts_of_index(experiment, service.retriever)
        limits = Limits(characters=keys.characters, top_k=keys.top_k)
        app = make_app(Server(service, token, keys.at_once, keys.per_second, limits), loopback)
        port = listening.getsockname()[1]
        address = f"http://{'localhost' if loopback else keys.host}:{port}/"
        listening.listen()  # who reads the line below can connect
        report(f"{len(service.retriever.index)} documents at {address}{f'#token={token}' if token else ''}")
        uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=GRACE_SECONDS,
                h11_max_incomplete_event_size=LARGEST_HEADER,
                http="h11",
                ws="none",
            )
        ).run(sockets=[listening])
    finally:
        listening.close()
    return TaskResult(text="stopped")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before anything is loaded.

    Raises:
        ConfigError: it is taken, not allowed, or no address of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named, asyncio sends what is written at once; else an answer's body waits 40 ms for the
        # other side to acknowledge its head.
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"serve.host={host} serve.port={port}: {error}; serve.port=0 takes any port that is free"
        ) from error
    return listening
