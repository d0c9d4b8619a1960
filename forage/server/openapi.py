"""The description of the service that tools read. Its schemas are those of the types that requests are read as."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import msgspec

from forage.server.contract import ErrorAnswer, RetrieveAnswer, RetrieveBody, SearchAnswer, SearchBody
from forage.server.limits import Limits

_TYPES = (SearchBody, SearchAnswer, RetrieveBody, RetrieveAnswer, ErrorAnswer)
_REFUSALS = {
    "400": "The body is no JSON.",
    "408": "The request did not arrive in time.",
    "413": "The body is larger than max_request_bytes.",
    "422": "The body is not as it should be, or above a limit, which is named.",
    "429": "Too many queries wait; Retry-After says when to come again.",
    "500": "The searches failed.",
    "503": "The index is not open.",
    "504": "No answer in time.",
}


def description(limits: Limits, *, secured: bool) -> dict[str, Any]:
    """The service in OpenAPI 3.1.

    Args:
        limits: stand in the description of the requests.
        secured: whether a token is asked for.
    """
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    schemas["SearchBody"]["properties"]["queries"] |= _bounds(limits)
    schemas["RetrieveBody"]["properties"]["queries"] = {"type": "array"} | _bounds(limits)
    components: dict[str, Any] = {"schemas": schemas}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forage search", "version": metadata.version("forage-rl"), "license": {"name": "Apache-2.0"}},
        "paths": _paths(secured),
        "components": components,
    }


def _bounds(limits: Limits) -> dict[str, Any]:
    return {"maxItems": limits.max_queries, "items": {"type": "string", "maxLength": limits.max_query_chars}}


def _paths(secured: bool) -> dict[str, Any]:
    security: dict[str, Any] = {"security": [{"token": []}]} if secured else {}
    search = _post("search", "Passages for queries.", "SearchBody", "SearchAnswer")
    retrieve = _post("retrieve", "The same, as Search-R1's server answers.", "RetrieveBody", "RetrieveAnswer")
    return {
        "/v1/search": {"post": search | security},
        "/retrieve": {"post": retrieve | security},
        "/v1/info": {"get": _get("info", "The index and the limits.") | security},
        "/health": {"get": _get("health", "200 once every worker has opened the index.", waits=True)},
        "/ready": {"get": _get("ready", "200 where a request would be taken now.", waits=True)},
        "/metrics": {"get": _get("metrics", "Counters for Prometheus.", kind="text/plain") | security},
        "/openapi.json": {"get": _get("openapi", "This description.") | security},
    }


def _post(name: str, summary: str, takes: str, gives: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": _json(takes)},
        "responses": {"200": {"description": "The passages.", "content": _json(gives)}}
        | {status: {"description": words, "content": _json("ErrorAnswer")} for status, words in _REFUSALS.items()},
    }


def _get(name: str, summary: str, *, waits: bool = False, kind: str = "application/json") -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": summary, "content": {kind: {}}}}
    if waits:
        responses["503"] = {"description": _REFUSALS["503"], "content": _json("ErrorAnswer")}
    return {"operationId": name, "summary": summary, "responses": responses}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
