"""The routes of the server."""

import asyncio
import hmac
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from splade.errors import SpladeError
from splade.server.batching_queue import BatchingQueue
from splade.server.openapi import description
from splade.server.requests import (
    MODEL,
    Limits,
    SearchRequest,
    chosen_name,
    explain_request,
    integer,
    search_request,
    texts,
)
from splade.server.service import SearchService
from splade.storage.atomic import JsonObject
from splade.vectors import SparseVectors

logger = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_BYTES = 1_000_000
MOST_TOGETHER = 64
BODY_SECONDS = 10.0
RELOAD_SECONDS = 2.0
WINDOW_SECONDS = 10.0

Result = TypeVar("Result")
Handler = Callable[["Server", Request], Awaitable[Response]]


class Served:
    """A model with its index, and the queues in which requests for it wait."""

    def __init__(self, service: SearchService, threads: Executor):
        self.service = service
        # While one batch of answers is put into words, the next is encoded.
        self.searches: BatchingQueue[SearchRequest, bytes]
        self.searches = BatchingQueue(service.answer_many, threads, MOST_TOGETHER, at_once=2)
        self.queries = BatchingQueue(service.query_vectors, threads, MOST_TOGETHER)
        self.documents = BatchingQueue(service.document_vectors, threads, MOST_TOGETHER)

    @property
    def queues(self) -> "tuple[BatchingQueue[SearchRequest, bytes] | BatchingQueue[str, SparseVectors], ...]":
        """All that encode."""
        return self.searches, self.queries, self.documents


@dataclass
class Server:
    """What is served, and what its routes share.

    Attributes:
        services: name to what answers for it; the first where a request names none.
        token: what requests must bring; None: nothing.
        at_once: requests that are worked on or wait; more are told to come again.
        per_second: requests of one address, on average over ten seconds; 0: any number.
        limits: of one request.
    """

    services: Mapping[str, SearchService]
    token: str | None = None
    at_once: int = 256
    per_second: float = 0.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(3 + len(self.services), "serve")
        self.served = {name: Served(service, self.threads) for name, service in self.services.items()}
        self.working = 0
        self.counts: Counter[tuple[str, int]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._recent: dict[str, list[float]] = {}

    def chosen(self, given: JsonObject) -> Served:
        """Return what a request asks; a DataError where there is no such model."""
        return self.served[chosen_name(given, list(self.served))]

    def health(self) -> JsonObject:
        """Tell what is served: of the first model, and of each with its name."""
        models = [{"name": name} | service.health() for name, service in self.services.items()]
        problems = [f"{model['name']}: {model['problem']}" for model in models if model["problem"] is not None]
        found = {key: value for key, value in models[0].items() if key != "name"} | {"models": models}
        if problems and len(models) > 1:
            found |= {"status": "degraded", "problem": "; ".join(problems)}
        return found

    async def in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Run `work` where it does not hold up other requests."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work, *arguments)

    def too_many_of(self, client: str) -> bool:
        """Count a request of an address; tell whether it had more than its share of late."""
        if not self.per_second:
            return False
        now = time.monotonic()
        if len(self._recent) > 10_000:
            self._recent = {name: times for name, times in self._recent.items() if times[-1] > now - WINDOW_SECONDS}
        recent = [moment for moment in self._recent.get(client, ()) if moment > now - WINDOW_SECONDS]
        self._recent[client] = recent
        if len(recent) >= self.per_second * WINDOW_SECONDS:
            return True
        recent.append(now)
        return False


def make_app(server: Server, loopback: bool = True) -> Starlette:
    """Return the application.

    Args:
        server: what it serves.
        loopback: only requests that name this machine by a loopback name are answered, so that a page of another site
            cannot have its visitors' browsers ask.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(server))
        try:
            yield
        finally:
            watching.cancel()
            server.threads.shutdown(wait=True, cancel_futures=True)

    def route(path: str, handler: Handler, methods: list[str], guarded: bool = True) -> Route:
        async def answer(request: Request) -> Response:
            return await _answer(server, handler, request, path, guarded)

        return Route(path, answer, methods=methods)

    routes = [
        *(route(path, _static, ["GET"], guarded=False) for path in FILES),
        route("/health", _health, ["GET"], guarded=False),
        route("/metrics", _metrics, ["GET"]),
        route("/openapi.json", _openapi, ["GET"], guarded=False),
        route("/search", _search, ["GET", "POST"]),
        route("/explain", _explain, ["POST"]),
        route("/encode", _encode, ["POST"]),
        route("/embed_sparse", _embed_sparse, ["POST"]),
    ]
    middleware = (
        [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK), www_redirect=False)] if loopback else []
    )
    handlers = {HTTPException: _http_error, Exception: _internal_error}
    return Starlette(routes=routes, lifespan=lifespan, middleware=middleware, exception_handlers=handlers)  # type: ignore[arg-type]


async def _answer(server: Server, handler: Handler, request: Request, path: str, guarded: bool) -> Response:
    """Let a request in, run its handler, count it; every failure is an answer in JSON."""
    start = time.perf_counter()
    if guarded and server.token is not None and not _brings(request, server.token):
        response = _error(401, "this server wants a token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
    elif guarded and server.too_many_of(request.client.host if request.client else ""):
        response = _error(429, f"more than {server.per_second:g} requests per second", {"Retry-After": "5"})
    elif guarded and server.working >= server.at_once:
        response = _error(503, f"{server.at_once} requests are worked on already", {"Retry-After": "1"})
    else:
        server.working += 1
        try:
            response = await handler(server, request)
        except SpladeError as error:
            response = _error(400, str(error))
        except HTTPException as error:
            response = _error(error.status_code, str(error.detail))
        except ClientDisconnect:
            response = _error(400, "the connection ended before the request did")
        except Exception:  # a fault of ours: one request fails, the server goes on, and the log has the traceback
            logger.exception("%s %s", request.method, path)
            response = _error(500, "internal error; the server's log has more")
        finally:
            server.working -= 1
    server.counts[path, response.status_code] += 1
    server.seconds[path] += time.perf_counter() - start
    response.headers.update(SAFE)
    return response


def _brings(request: Request, token: str) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())


async def _static(_server: Server, request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return Response((STATIC / name).read_bytes(), media_type=f"{kind}; charset=utf-8")


async def _health(server: Server, _request: Request) -> Response:
    return JSONResponse(server.health())


async def _openapi(server: Server, _request: Request) -> Response:
    return JSONResponse(description(server.limits, list(server.services), server.token is not None))


async def _metrics(server: Server, _request: Request) -> Response:
    lines = ["# TYPE splade_requests_total counter"]
    lines += [
        f'splade_requests_total{{path="{path}",status="{status}"}} {count}'
        for (path, status), count in sorted(server.counts.items())
    ]
    lines.append("# TYPE splade_request_seconds_total counter")
    lines += [f'splade_request_seconds_total{{path="{path}"}} {s:.6f}' for path, s in sorted(server.seconds.items())]
    queues = [queue for served in server.served.values() for queue in served.queues]
    values = {
        "splade_requests_working gauge": server.working,
        "splade_encoded_batches_total counter": sum(queue.n_batches for queue in queues),
        "splade_encoded_texts_total counter": sum(queue.n_items for queue in queues),
        "splade_known_queries_total counter": sum(service.queries.n_found for service in server.services.values()),
    }
    for name, value in values.items():
        lines += [f"# TYPE {name}", f"{name.split()[0]} {value}"]
    lines.append("# TYPE splade_documents gauge")
    lines += [
        f"splade_documents{{model={json.dumps(name)}}} {len(service.retriever.index)}"
        for name, service in server.services.items()
    ]
    return PlainTextResponse("\n".join(lines) + "\n")


async def _search(server: Server, request: Request) -> Response:
    given = _parameters(request) if request.method == "GET" else await _json(request)
    answer = await server.chosen(given).searches.result(search_request(given, server.limits))
    return Response(answer, media_type="application/json")


async def _explain(server: Server, request: Request) -> Response:
    given = await _json(request)
    asked = explain_request(given, server.limits)
    return JSONResponse(await server.in_thread(server.chosen(given).service.explain, asked))


async def _encode(server: Server, request: Request) -> Response:
    given = await _json(request)
    vectors = await _vectors(server, given, "side")
    return JSONResponse(await server.in_thread(server.chosen(given).service.bags, vectors))


async def _embed_sparse(server: Server, request: Request) -> Response:
    """Answer as text-embeddings-inference does; `prompt_name` of `query` encodes queries, anything else documents."""
    vectors = await _vectors(server, await _json(request), "prompt_name")
    return JSONResponse(
        [
            [{"index": index, "value": value} for index, value in zip(terms.tolist(), weights.tolist(), strict=True)]
            for terms, weights in vectors
        ]
    )


async def _vectors(server: Server, given: JsonObject, side: str) -> SparseVectors:
    asked = texts(given, "inputs", server.limits)
    served = server.chosen(given)
    queue = served.queries if given.get(side) == "query" else served.documents
    rows = await asyncio.gather(*(queue.result(one) for one in asked))
    return SparseVectors.concatenate(rows, served.service.model.vocab_size)


def _parameters(request: Request) -> JsonObject:
    """Read a search from an address: q (or query), k (or top_k), effort, explain."""
    given: JsonObject = {}
    for name, value in request.query_params.items():
        name = {"q": "query", "k": "top_k"}.get(name, name)
        if name not in ("query", MODEL):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                pass  # is told as what it is
        given[name] = value
    integer({"top_k": given.get("top_k", 1)}, "top_k", 1, 10**9)
    return given


async def _json(request: Request) -> JsonObject:
    """Read the body of a request as a JSON object.

    Raises:
        HTTPException: too large (413), too slow (408), or no JSON object (400).
    """
    try:
        body = await asyncio.wait_for(_body(request), BODY_SECONDS)
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_SECONDS:g} seconds") from None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return found


async def _body(request: Request) -> bytes:
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MOST_BYTES:
            raise HTTPException(413, f"the body is larger than {MOST_BYTES} bytes")
    return bytes(found)


async def _watch(server: Server) -> None:
    """Take an index anew whenever it was built again."""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        for service in server.services.values():
            try:
                await server.in_thread(service.reload)
            except Exception:  # the watch must not end: it is tried again, and the log has the traceback
                logger.exception("looking for a newer index")


async def _http_error(_request: Request, error: HTTPException) -> Response:
    return _error(error.status_code, str(error.detail), SAFE)


async def _internal_error(_request: Request, _error_: Exception) -> Response:
    return _error(500, "internal error; the server's log has more", SAFE)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)
