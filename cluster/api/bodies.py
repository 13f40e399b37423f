"""JSON bodies, read strictly: whatever is sent, the answer is a 4xx with a sentence, never a server error."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from cluster import errors, pace

LIMIT = 2**20
DEEPEST = 64
LARGEST = 2**63
"""Numbers beyond it are nobody's settings, and not every database can keep them."""


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises InvalidRequest and TooLarge."""
    found = parse(await raw(request), request.headers.get("content-type", ""))
    if not isinstance(found, dict):
        raise errors.InvalidRequest("The body must be a JSON object.")
    return found


async def optional_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object, an empty one where there is none."""
    text = await raw(request)
    if not text.strip():
        return {}
    found = parse(text, request.headers.get("content-type", ""))
    if not isinstance(found, dict):
        raise errors.InvalidRequest("The body must be a JSON object.")
    return found


async def raw(request: Request) -> bytes:
    """The body, up to LIMIT bytes. Raises TooLarge, BodyTimeout and InvalidRequest."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > LIMIT:
        raise errors.TooLarge(f"The body is over the limit of {LIMIT} bytes.")
    text = bytearray()
    try:
        async with asyncio.timeout(pace.seconds(LIMIT)):
            async for chunk in request.stream():
                text += chunk
                if len(text) > LIMIT:
                    raise errors.TooLarge(f"The body is over the limit of {LIMIT} bytes.")
    except TimeoutError:
        raise errors.BodyTimeout from None
    except ClientDisconnect:
        raise errors.InvalidRequest("The body ended too early.") from None
    return bytes(text)


def parse(text: bytes, kind: str) -> Any:
    """JSON text as Python values. Raises InvalidRequest."""
    if kind and not kind.split(";", 1)[0].strip().lower().endswith("json"):
        raise errors.InvalidRequest("Send the body as Content-Type: application/json.")
    if not text.strip():
        raise errors.InvalidRequest("The body is empty: send a JSON object.")
    try:
        found = json.loads(text.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_object)
    except UnicodeError:
        raise errors.InvalidRequest("The body is not UTF-8 text.") from None
    except RecursionError:
        raise errors.InvalidRequest("The body is nested too deeply.") from None
    except ValueError as exc:
        where = f" (line {exc.lineno}, column {exc.colno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise errors.InvalidRequest(f"The body is not valid JSON{where}.") from None
    _check(found)
    return found


def _check(found: Any) -> None:
    """Refuse what is JSON and yet nothing that can be kept and given back. Not recursive, whatever the depth."""
    waiting = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise errors.InvalidRequest("The body is nested too deeply.")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            _check_text(value)
        elif isinstance(value, int | float) and not abs(value) < LARGEST:
            raise errors.InvalidRequest("The body has a number that is too large.")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise errors.InvalidRequest("The body has a text with a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise errors.InvalidRequest("The body has a text with half a character (a lone surrogate).") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found
