"""How the API describes itself: OpenAPI with what may be sent, what is answered, errors and the key, and a page to read it on.

The page is whole in itself: nothing is loaded from elsewhere, so it works on a network without the internet.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cluster import credential_control, key_control, model_control, platform_keys, rotation, settings_docs, tenancy
from cluster import spec as specs
from cluster.api import schemas

REFERENCE = "#/components/schemas/"
REFUSALS: Mapping[int, str] = {
    400: "The request is not valid.",
    401: "No valid API key was given.",
    403: "This key may not do that.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "Not in the present state.",
    413: "The body is over the limit.",
    503: "Not right now: see Retry-After.",
}
"""Errors that every route may answer. Told to the document, not to each route, which would make a model of each: half a second in all."""

IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "A retry with the same key and body is answered as the first try was, and does nothing. Kept for a day.",
}


def body(name: str, *, required: bool = True, repeatable: bool = False) -> dict[str, Any]:
    """`openapi_extra` of a route that takes a JSON body: `name` is that of a component; `repeatable` by an Idempotency-Key."""
    content = {"application/json": {"schema": {"$ref": REFERENCE + name}}}
    found: dict[str, Any] = {"requestBody": {"content": content, "required": required}}
    return found | {"parameters": [IDEMPOTENCY_KEY]} if repeatable else found


class Described(FastAPI):
    """A FastAPI whose OpenAPI document is complete though bodies are read, and answers made, by hand."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if not self.openapi_schema:
            found = get_openapi(title=self.title, version=self.version, summary=self.summary, routes=self.routes)
            components = found.setdefault("components", {})
            components.setdefault("schemas", {}).update(_bodies())
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "A platform key (moor_p_...)."}}
            for path, methods in found["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)  # what FastAPI would answer 422 to is answered 400 here
                    if path != "/health":
                        operation["security"] = [{"key": []}]
                        operation["responses"] = _refusals() | operation["responses"]
            for unused in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(unused, None)
            found["servers"] = [{"url": self.root_path or "/manage"}]
            self.openapi_schema = found
        return self.openapi_schema


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"{REFERENCE}Error"}}}
    return {str(status): {"description": text, "content": content} for status, text in REFUSALS.items()}


def _bodies() -> dict[str, Any]:
    models: tuple[type[BaseModel], ...] = (
        schemas.Error,
        specs.EndpointSpec,
        specs.Adapter,
        key_control.NewKey,
        key_control.EditedKey,
        rotation.Rotation,
        model_control.NewModel,
        model_control.NewVersion,
        model_control.EditedModel,
        credential_control.NewSecret,
        credential_control.EditedSecret,
        credential_control.NewIntegration,
        credential_control.EditedIntegration,
        platform_keys.NewPlatformKey,
        platform_keys.EditedPlatformKey,
        tenancy.NewTenant,
        tenancy.NewNamespace,
        tenancy.Described,
        tenancy.NewUser,
        tenancy.EditedUser,
    )
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=REFERENCE + "{model}")
    answers = {"NewKey": "KeyFields", "NewPlatformKey": "PlatformKeyFields", "Adapter": "AdapterFields"}
    """Bodies whose answers have their name already."""
    named: dict[str, Any] = {answers.get(name, name): schema for name, schema in found["$defs"].items()}
    for model in settings_docs.GROUPS.values():
        settings_docs.describe(named[model.__name__], model)
    whole = named["EndpointSpec"]
    # Only the name is required at creation, and not even that: it is suggested. A change may have any part.
    whole.pop("required", None)
    named["EndpointChange"] = {**whole, "title": "EndpointChange", "description": "Any part of an EndpointSpec; null takes a field back."}
    named["Rollback"] = {
        "type": "object",
        "properties": {"revision": {"type": "integer", "description": "The revision to go back to; without it the last that was live."}},
        "additionalProperties": False,
    }
    return named


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}h2{margin-top:2rem;text-transform:capitalize}"
    "table{border-collapse:collapse;width:100%}td{border-top:1px solid #8884;padding:.4rem .6rem;vertical-align:top}code{font-size:13px}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}"
)


PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""The page has one style sheet in it, and runs nothing."""


def page(document: Mapping[str, Any]) -> str:
    """The routes of an OpenAPI document as HTML."""
    rows: dict[str, list[str]] = {}
    base = document["servers"][0]["url"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            rows.setdefault(operation.get("tags", ["other"])[0], []).append(_row(method.upper(), base + path, operation))
    sections = "".join(f"<h2>{html.escape(tag)}</h2><table>{''.join(lines)}</table>" for tag, lines in rows.items())
    title = html.escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: management API</title><style>{STYLE}</style>'
        f"<h1>{title}: management API</h1><p>{html.escape(document['info'].get('summary', ''))}. "
        f'Send <code>Authorization: Bearer &lt;platform key&gt;</code>. The whole description: <a href="openapi.json">openapi.json</a>.</p>'
        f"{sections}</html>"
    )


def _row(method: str, path: str, operation: Mapping[str, Any]) -> str:
    asked = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    query = f"<br><small>{html.escape(', '.join(asked))}</small>" if asked else ""
    cells = (f"<code>{method}</code>", f"<code>{html.escape(path)}</code>{query}", html.escape(operation["summary"]))
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
