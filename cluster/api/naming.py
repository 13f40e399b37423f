"""What the audit log calls a route's action, told by its method and path: `PUT /v2/endpoint/{namespace}/{name}` is `endpoint.update`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Mapping
from typing import Any

from cluster import keys

VERBS = {"GET": "read", "PUT": "update", "PATCH": "update", "DELETE": "delete"}
OWN_VERBS = {"key.delete": "key.revoke", "platform-key.delete": "platform-key.revoke"}
NOUNS = {"/v2/keys": "platform-key", "/v2/models/{namespace}/{name}/versions": "model-version"}
"""By the path up to the last fixed word, where that word alone would not tell."""
IDENTITY = {"key": "id", "platform-key": "id", "model-version": "version"}
"""The field of a new thing's answer that names it; `name`, or else `id`, of others."""
LONE = 2
"""Fixed words of a path that has nothing but its version and a noun."""
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclasses.dataclass(frozen=True)
class Name:
    """What a route does to what."""

    action: str
    noun: str
    parameters: tuple[str, ...]
    """Of its path, in order."""
    creates: bool
    shown_at: str | None
    """The path whose GET shows the thing that it changes."""

    def resource(self, values: Mapping[str, Any], answer: Mapping[str, Any] | None = None) -> str:
        """Like `namespace/name`: the path's parameters, and what a new thing is called in the answer. Keys by their id."""
        parts = [str(values[name]) for name in self.parameters if name in values]
        if self.creates and answer:
            field = IDENTITY.get(self.noun, "name")
            parts.append(str(answer.get(field, answer.get("id", ""))))
        return "/".join(keys.key_id(part) or part for part in parts if part)


def of(method: str, path: str, readable: Container[str]) -> Name:
    """`readable` are the paths that have a GET: a POST there adds something, any other POST is a command on what is above it."""
    parameters = tuple(PARAMETER.findall(path))
    parts = path.split("/")
    fixed = [index for index, part in enumerate(parts) if part and not part.startswith("{")]
    creates = method == "POST" and (path in readable or parts[-1].startswith("{") or len(fixed) <= LONE)
    command = method == "POST" and not creates
    place = fixed[-2] if command and len(fixed) > 1 else fixed[-1]
    noun = NOUNS.get("/".join(parts[: place + 1])) or _singular(parts[place])
    verb = parts[-1] if command else "create" if creates else VERBS[method]
    action = f"{noun}.{verb}"
    return Name(OWN_VERBS.get(action, action), noun, parameters, creates, None if creates else _shown_at(path, readable))


def _shown_at(path: str, readable: Container[str]) -> str | None:
    """The nearest path, from this one up, that shows one thing: of those above, one that ends with a parameter."""
    above = path
    while above:
        if above in readable and (above == path or above.endswith("}")):
            return above
        above = above.rpartition("/")[0]
    return None


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
