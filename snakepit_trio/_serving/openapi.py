"""The description of the tools as OpenAPI 3.1, made of their schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from .asgi import EVENTS, JSON
from .problems import KINDS, PROBLEM_JSON
from .schemas import ToolSchema

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")
_LOCAL: Final = re.compile(r"#/(\$defs|definitions)/")
_PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "What went wrong, by RFC 9457.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"detail": {"type": "string"}, "pointer": {"type": "string"}},
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}
#: What the app itself refuses; the other statuses are those of errors.
_OWN: Final[Mapping[int, str]] = {
    400: "The body is not valid JSON, or a header cannot be read",
    401: "The token is missing or wrong",
    406: "The answer has no such form",
    413: "The body is too large",
    415: "The body is not JSON",
}
_PARAMETERS: Final = (
    ("Request-Timeout", "Seconds that the call may take.", {"type": "number", "exclusiveMinimum": 0}),
    ("Call-Priority", "How soon the call leaves the queue.", {"type": "integer", "minimum": -100, "maximum": 100}),
    ("Session-Id", "The session of the call.", {"type": "string", "maxLength": 128}),
)


def openapi_of(schemas: Iterable[ToolSchema], root_path: str, *, needs_token: bool) -> dict[str, Any]:
    """Describe tools. `root_path` is where the app is mounted."""
    shared: dict[str, Any] = {"Problem": dict(_PROBLEM)}
    paths = {f"/tools/{quote(schema.name, safe='')}": {"post": _operation(schema, shared)} for schema in schemas}
    components: dict[str, Any] = {
        "schemas": shared,
        "parameters": {
            name: {"name": name, "in": "header", "description": text, "required": False, "schema": schema}
            for name, text, schema in _PARAMETERS
        },
        "responses": {f"Problem{status}": _problem(text) for status, text in sorted(_statuses().items())},
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Tools of a snakepit-trio pool", "version": "1"},
        "servers": [{"url": root_path or "/"}],
        "paths": paths,
        "components": components,
    }
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _statuses() -> dict[int, str]:
    found = dict(_OWN)
    for kind in KINDS:
        text = found.get(kind.status, "")
        if kind.title not in text:
            found[kind.status] = f"{text}; or: {kind.title}" if text else kind.title
    return found


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {PROBLEM_JSON: {"schema": schema}}}


def _operation(schema: ToolSchema, shared: dict[str, Any]) -> dict[str, Any]:
    output = _moved(schema.output, f"{schema.name}.output", shared)
    events = {"schema": {"type": "string", "description": "Server-sent events: chunk, progress, result, end, error."}}
    content = {EVENTS: events} if schema.streaming else {JSON: {"schema": output}, EVENTS: events}
    if schema.streaming:
        events["schema"]["description"] += " The data of a chunk is JSON, by `x-chunk`."
        events["x-chunk"] = output
    return {
        "operationId": schema.name,
        "description": schema.description,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name, _, _ in _PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": _moved(schema.input, f"{schema.name}.input", shared)}},
        },
        "responses": {
            "200": {"description": "The result of the tool", "content": content},
            **{str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in sorted(_statuses())},
        },
    }


def _moved(schema: Any, prefix: str, shared: dict[str, Any]) -> Any:
    """A schema whose own definitions are moved to those that the document shares.

    In a document of OpenAPI, `#/$defs/Point` is looked up from the root of the document.
    """
    if not isinstance(schema, Mapping):
        return {}
    prefix = _NO_NAME.sub("_", prefix)
    for place in ("$defs", "definitions"):
        found = schema.get(place)
        for name, each in found.items() if isinstance(found, Mapping) else ():
            shared[f"{prefix}.{_NO_NAME.sub('_', name)}"] = _renamed(each, prefix)
    own = {key: each for key, each in schema.items() if key not in ("$defs", "definitions", "$schema")}
    return _renamed(own, prefix)


def _renamed(schema: Any, prefix: str) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: _reference(each, prefix) if key == "$ref" and isinstance(each, str) else _renamed(each, prefix)
            for key, each in schema.items()
        }
    return [_renamed(each, prefix) for each in schema] if isinstance(schema, list | tuple) else schema


def _reference(reference: str, prefix: str) -> str:
    found = _LOCAL.match(reference)
    if found is None:
        return reference
    name, slash, rest = reference[found.end() :].partition("/")
    return f"#/components/schemas/{prefix}.{_NO_NAME.sub('_', name)}{slash}{rest}"
