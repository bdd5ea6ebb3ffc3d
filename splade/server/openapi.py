"""The description of the API in OpenAPI 3.1."""

from collections.abc import Sequence

from splade.server.requests import MODEL, Limits
from splade.storage.atomic import JsonObject as Schema


def description(limits: Limits, models: Sequence[str], with_token: bool) -> Schema:
    """Return the description as values that JSON can hold."""
    text = {"type": "string", "maxLength": limits.characters}
    model = {"type": "string", "enum": list(models), "default": models[0]}
    search = {
        "query": text,
        "top_k": {"type": "integer", "minimum": 1, "maximum": limits.top_k, "default": 10},
        "effort": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1, "description": "1 is exact"},
        "factors": {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1000},
            "description": "token of the query to what its weight is multiplied by; 0 leaves it out",
        },
        "explain": {"type": "boolean", "default": False, "description": "the terms that made each score"},
        MODEL: model,
    }
    inputs = {"oneOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": limits.texts}]}
    side = {"type": "string", "enum": ["query", "document"], "default": "document"}
    entry = {"type": "object", "properties": {"index": {"type": "integer"}, "value": {"type": "number"}}}
    word = {"type": "object", "properties": {"token": {"type": "string"}, "weight": {"type": "number"}}}
    paths: Schema = {
        "/search": {
            "post": _operation("Search the index", _object(search, ["query"]), {"type": "object"}),
            "get": {
                "summary": "Search the index",
                "parameters": [
                    {"name": name, "in": "query", "required": name == "q", "schema": schema}
                    for name, schema in (
                        ("q", text),
                        ("k", search["top_k"]),
                        ("effort", search["effort"]),
                        ("model", model),
                    )
                ],
                "responses": _responses({"type": "object"}),
            },
        },
        "/explain": {
            "post": _operation(
                "The terms that made a score, and the tokens that gave them; doc_id or text",
                _object({"query": text, "doc_id": text, "text": text, MODEL: model}, ["query"]),
                {"type": "object"},
            )
        },
        "/encode": {
            "post": _operation(
                "Texts as words with weights, heaviest first",
                _object({"inputs": inputs, "side": side, MODEL: model}, ["inputs"]),
                _rows(word),
            )
        },
        "/embed_sparse": {
            "post": _operation(
                "Texts as sparse vectors, as text-embeddings-inference gives them",
                _object({"inputs": inputs, "prompt_name": side, MODEL: model}, ["inputs"]),
                _rows(entry),
            )
        },
        "/health": {"get": {"summary": "What is served", "responses": _responses({"type": "object"})}},
        "/metrics": {"get": {"summary": "Counters for Prometheus", "responses": {"200": {"description": "text"}}}},
    }
    found: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "Learned sparse retrieval", "version": "1"},
        "paths": paths,
    }
    if with_token:
        found["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        found["security"] = [{"token": []}]
    return found


def _operation(summary: str, body: Schema, answer: Schema) -> Schema:
    content = {"application/json": {"schema": body}}
    return {"summary": summary, "requestBody": {"required": True, "content": content}, "responses": _responses(answer)}


def _responses(answer: Schema) -> Schema:
    error = _object({"error": {"type": "string"}}, ["error"])
    reasons = {"400": "what is wrong with the request", "401": "no token", "413": "too large", "429": "too often"}
    reasons["503"] = "busy"
    return {"200": _response("the answer", answer)} | {code: _response(text, error) for code, text in reasons.items()}


def _response(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _object(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _rows(entry: Schema) -> Schema:
    return {"type": "array", "items": {"type": "array", "items": entry}}
