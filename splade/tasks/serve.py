"""Task: an index on a web page, with an HTTP API."""

import ipaddress
import logging
import secrets
import socket
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from splade.config import Experiment, require
from splade.config.command import report
from splade.config.schema import ModelConfig
from splade.encoding.sparse_model import SparseModel
from splade.errors import ConfigError
from splade.reports.summaries import TaskResult
from splade.retrieval.origin import Origin, read_origin
from splade.tasks.compare import distinct_parts
from splade.tasks.document_texts import texts_of_index
from splade.tasks.launching import open_built_index
from splade.tasks.model_loading import load_model_of_index

if TYPE_CHECKING:
    from splade.server.service import SearchService

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
        services = _services(experiment, SearchService)
        limits = Limits(characters=keys.characters, top_k=keys.top_k)
        app = make_app(Server(services, token, keys.at_once, keys.per_second, limits), loopback)
        port = listening.getsockname()[1]
        address = f"http://{'localhost' if loopback else keys.host}:{port}/"
        listening.listen()  # who reads the line below can connect
        sizes = " and ".join(str(len(service.retriever.index)) for service in services.values())
        report(f"{sizes} documents at {address}{f'#token={token}' if token else ''}")
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


def served_folders(index_dir: str, others: list[str] | dict[str, str] | None) -> dict[str, str]:
    """Return name to folder of all indexes that are served; those without a name are called by what tells them apart.

    Raises:
        ConfigError: one index or one name twice.

    Example:
        >>> served_folders("runs/small/index", ["runs/large/index"])
        {'small': 'runs/small/index', 'large': 'runs/large/index'}
        >>> served_folders("runs/small/index", {"pruned": "runs/small/pruned"})
        {'index': 'runs/small/index', 'pruned': 'runs/small/pruned'}
    """
    if isinstance(others, dict):
        named = [(distinct_parts([index_dir])[0], index_dir), *others.items()]
    else:
        folders = [index_dir, *(others or ())]
        named = list(zip(distinct_parts(folders), folders, strict=True))
    found = dict(named)
    if len(found) < len(named) or len({Path(folder).resolve() for folder in found.values()}) < len(named):
        listing = ", ".join(f"{name}: {folder}" for name, folder in named)
        raise ConfigError(f"serve.others={others}: one index or one name is there twice ({listing})")
    return found


def _services(experiment: Experiment, service: "type[SearchService]") -> "dict[str, SearchService]":
    """Open what is served; indexes of one model share it."""
    run = experiment.config
    folders = served_folders(str(run.index_dir), experiment.serve.others)
    loaded: list[tuple[Origin, SparseModel]] = []
    services: dict[str, SearchService] = {}
    for name, folder in folders.items():
        own = experiment
        if services:  # what is said of a model, or where texts are, is said of the first index
            own = deepcopy(experiment)
            own.config.index_dir, own.config.checkpoint_dir, own.config.pretrained_no_yamlconfig = folder, None, False
            own.init_dict, own.data.COLLECTION_PATH = ModelConfig(), None
        place = Path(folder)
        origin = read_origin(place.parent if place.is_file() else place)
        model = next((model for made, model in loaded if services and made == origin), None)
        if model is None:
            named = own.init_dict.model_type_or_dir is not None or own.config.checkpoint_dir is not None
            model, _ = load_model_of_index(own)
            if origin is not None and not named:
                loaded.append((origin, model))
        services[name] = service(
            *(model, place, partial(texts_of_index, own), partial(open_built_index, own)),
            kept_queries=experiment.serve.kept_queries,
        )
    return services


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
