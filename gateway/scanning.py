"""One value out of a large body, without reading the rest of it into objects.

`json.loads` of a body of 100 MB keeps all other work of its process from running for seconds, in whatever thread it is
called. Here long texts are passed over by searches for their end, and small parts are counted.
"""

from __future__ import annotations

import email.message
import json
import re
from typing import Any

MOST_MARKS = 250_000
"""Brackets and quotes that are looked at, at most."""
TOO_MANY = "The body has too many parts before `model`: give `model` first, or call the endpoint by its own URL."
BLANKS = re.compile(rb"[ \t\n\r]*")
SCALAR = re.compile(rb"[^ \t\n\r,:{}\[\]\"]{1,10000}")
MARK = re.compile(rb'["{}\[\]]')
LONGEST_NAME = 1000
PART_HEAD_BYTES = 8192


class Unreadable(Exception):
    """The text is not of its kind, or has too many parts; the message is a sentence."""


def member(text: bytes, *names: str) -> Any:
    """The value under `names`, one within the other, in the JSON object `text`, None when it has none: `("a", "b")` is `text["a"]["b"]`.

    The first value of a name counts, and what follows it is not looked at. Raises Unreadable.
    """
    found: bytes | None = text
    for depth, name in enumerate(names):
        if found is None or (depth and found[:1] != b"{"):
            return None
        found = _value(found, name)
    return None if found is None else _parsed(found)


def _value(text: bytes, name: str) -> bytes | None:
    place = _blanks(text, 0)
    if text[place : place + 1] != b"{":
        raise Unreadable("The body must be a JSON object.")
    place, marks = _blanks(text, place + 1), 0
    if text[place : place + 1] == b"}":
        return None
    while marks < MOST_MARKS:
        end, marks = _value_end(text, place, marks)
        found = _parsed(text[place:end]) if text[place : place + 1] == b'"' else None
        if not isinstance(found, str):
            raise Unreadable("The body is not valid JSON.")
        place = _after(text, end, b":")
        end, marks = _value_end(text, place, marks)
        if found == name:
            return text[place:end]
        end = _blanks(text, end)
        if text[end : end + 1] == b"}":
            return None
        place = _after(text, end, b",")
    raise Unreadable(TOO_MANY)


def form_field(text: bytes, content_type: str, name: str) -> str | None:
    """The content of the field `name` of a multipart form, None when it has none."""
    boundary = _parameter(content_type, "boundary")
    if not boundary:
        return None
    line = b"--" + boundary.encode("latin-1", "replace")
    start = text.find(line)
    for _ in range(MOST_MARKS):
        if start < 0:
            return None
        head_end = text.find(b"\r\n\r\n", start, start + PART_HEAD_BYTES)
        end = text.find(b"\r\n" + line, start + len(line))
        if 0 < head_end < end and _disposition_name(text[start + len(line) : head_end]) == name:
            return text[head_end + 4 : min(end, head_end + 4 + LONGEST_NAME)].decode("utf-8", "replace").strip()
        start = end + 2 if end >= 0 else -1
    return None


def _value_end(text: bytes, start: int, marks: int) -> tuple[int, int]:
    """The place after the value that starts here, and the marks seen so far."""
    if text[start : start + 1] == b'"':
        return _string_end(text, start), marks + 1
    if text[start : start + 1] not in (b"{", b"["):
        scalar = SCALAR.match(text, start)
        if scalar is None:
            raise Unreadable("The body is not valid JSON.")
        return scalar.end(), marks + 1
    depth, place = 0, start
    while marks < MOST_MARKS:
        found = MARK.search(text, place)
        if found is None:
            raise Unreadable("The body is not valid JSON.")
        marks += 1
        match found.group():
            case b'"':
                place = _string_end(text, found.start())
                continue
            case b"{" | b"[":
                depth += 1
            case _:
                depth -= 1
        place = found.end()
        if depth == 0:
            return place, marks
    raise Unreadable(TOO_MANY)


def _string_end(text: bytes, start: int) -> int:
    place = start + 1
    while True:
        quote = text.find(b'"', place)
        if quote < 0:
            raise Unreadable("The body is not valid JSON.")
        escapes = quote
        while escapes > place and text[escapes - 1] == 0x5C:
            escapes -= 1
        if (quote - escapes) % 2 == 0:
            return quote + 1
        place = quote + 1


def _parsed(text: bytes) -> Any:
    """A name or the wanted value; one that is longer than any name is no name."""
    if len(text) > LONGEST_NAME:
        return ""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unreadable("The body is not valid JSON.") from None


def _blanks(text: bytes, start: int) -> int:
    found = BLANKS.match(text, start)
    return found.end() if found else start


def _after(text: bytes, start: int, mark: bytes) -> int:
    place = _blanks(text, start)
    if text[place : place + 1] != mark:
        raise Unreadable("The body is not valid JSON.")
    return _blanks(text, place + 1)


def _disposition_name(head: bytes) -> str | None:
    for line in head.split(b"\r\n"):
        kind, _, value = line.partition(b":")
        if kind.strip().lower() == b"content-disposition":
            return _parameter(value.decode("utf-8", "replace"), "name")
    return None


def _parameter(value: str, name: str) -> str | None:
    """A parameter of a header's value, without its quotes."""
    message = email.message.Message()
    message["x"] = " ".join(value.split())
    found = message.get_param(name, header="x")
    return found if isinstance(found, str) else None
