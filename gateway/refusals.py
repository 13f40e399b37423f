"""`cluster.errors` as HAProxy configuration: the same words, statuses and shapes that the rest of the platform answers with.

Used by the template only; the slow path answers through `cluster.http_errors` itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cluster import errors, http_errors, routes

HUGGING_FACE = "{ var(txn.hf) -m bool }"
"""Where errors have Hugging Face's shape."""


def answer(
    name: str,
    condition: str,
    *,
    message: str = "",
    retry_after: str = "",
    rules: str = "http-request",
    fill: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Two `return` rules of the set `rules`, one for Hugging Face's shape and one for the others: where `condition` holds, they
    refuse with `errors.<name>`.

    `condition` is AND-ed terms only (OR goes into a named ACL, HAProxy has no brackets). `retry_after` is a log-format
    expression in seconds. `fill`: `{word}` of the message -> HAProxy's expression for it. `extra`: more headers -> log-format
    expressions.
    """
    error = _error(name, message)
    status = http_errors.status_of(error)
    lines = []
    openai = _with_anthropic_words(_quoted(json.dumps(http_errors.openai_body(error))), status)
    for body, dialect in ((_quoted(json.dumps(http_errors.management_body(error))), HUGGING_FACE), (openai, f"!{HUGGING_FACE}")):
        headers = f"hdr X-Error-Code {error.code} hdr X-Error-Message {_quoted(error.message)}"
        for header, expression in {**({"Retry-After": retry_after} if retry_after else {}), **(extra or {})}.items():
            headers += f" hdr {header} {_quoted(expression, literal=False)}"
        rule = f"{rules} return status {status} content-type application/json {headers} lf-string {body}"
        for word, expression in (fill or {}).items():
            rule = rule.replace(f"{{{word}}}", f"%[{expression}]")
        lines.append(f"{rule} if {condition} {dialect}")
    return "\n    ".join(lines)


def builtin(status: int, name: str, *, message: str = "", retry_after: int = 0) -> str:
    """An `http-error` line: what HAProxy itself answers with `status`, in the dialect that the request's variables hold."""
    error = _error(name, message)
    kind = http_errors.OPENAI_TYPE.get(status, "server_error")
    headers = f"hdr X-Error-Code {error.code}" + (f" hdr Retry-After {retry_after}" if retry_after else "")
    # The two shapes differ at the beginning, before the code and at the end; see `shapes`.
    body = f'{_shaped("a")}{error.message}","type":"{_kind(status, kind)}","{_shaped("b")}":"{error.code}"{_shaped("c")}'
    return f"http-error status {status} content-type application/json {headers} lf-string {_doubly_quoted(body)}"


OPENAI_PARTS = {"a": '{"error":{"message":"', "b": 'param":null,"code', "c": "}}"}
HUGGING_FACE_PARTS = {"a": '{"error":"', "b": "error_type", "c": "}"}


def shapes() -> str:
    """The rules that set the variables which bodies of other shapes are made of; OpenAI's is what there is without."""
    lines = [f"http-request set-var-fmt(txn.shape_{part}) '{text}' if {HUGGING_FACE}" for part, text in HUGGING_FACE_PARTS.items()]
    anthropic = {"shape_a": '{"type":"error","error":{"message":"', "anthropic": '"type": "error", '}
    anthropic |= {f"kind_{status}": kind for status, kind in http_errors.ANTHROPIC_TYPE.items()}
    condition = "{ path -m end " + " ".join(routes.MESSAGES) + " }"
    return "\n    ".join([*lines, *(f"http-request set-var-fmt(txn.{name}) '{text}' if {condition}" for name, text in anthropic.items())])


def _with_anthropic_words(body: str, status: int) -> str:
    """`body`, of OpenAI's shape, as an expression that has Anthropic's where `shapes` has set its words."""
    kind = http_errors.OPENAI_TYPE.get(status, "server_error")
    body = body.replace(f'"type": "{kind}"', f'"type": "{_kind(status, kind)}"', 1)
    return body.replace('{"error"', '{%[var(txn.anthropic)]"error"', 1)


def _kind(status: int, kind: str) -> str:
    return f"%[var(txn.kind_{status},{kind})]" if status in http_errors.ANTHROPIC_TYPE else kind


def _shaped(part: str) -> str:
    return f"%[var(txn.shape_{part},'{OPENAI_PARTS[part]}')]"


def _doubly_quoted(text: str) -> str:
    """`text` with log-format expressions as one weakly quoted word."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _error(name: str, message: str) -> errors.MoorageError:
    kind = getattr(errors, name)
    error = kind(message or None)
    if not isinstance(error, errors.MoorageError):
        raise TypeError(f"{name} is not one of cluster.errors")
    return error


def _quoted(text: str, *, literal: bool = True) -> str:
    """`text` as one strongly quoted word of HAProxy's configuration; `literal` text may not start log-format expressions."""
    text = text.replace("'", "\\u0027" if text.startswith("{") else "`")
    return "'" + (text.replace("%", "%%") if literal else text) + "'"
