"""Embeddings, sentence similarity and classification between Hugging Face's form and the engine's: pure translation, no I/O."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deployments.dialects.generation import Invalid

EMBEDDING_TASKS = frozenset({"feature-extraction", "sentence-similarity", "sentence-embeddings"})
CLASSIFICATION_TASKS = frozenset({"text-classification"})
TASKS = EMBEDDING_TASKS | CLASSIFICATION_TASKS
"""Whose `inputs` are not continued but looked at."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the engine is asked, and what its whole answer is made into."""

    route: str
    body: Mapping[str, Any]
    read: Callable[[Mapping[str, Any]], Any]


def translate(body: Mapping[str, Any], task: str, labels: Mapping[int, str]) -> Asked:
    """`body` is a request of Hugging Face's, `labels` are the classes' names by number. Raises Invalid."""
    inputs = body.get("inputs")
    if task in CLASSIFICATION_TASKS:
        return _classify(_texts(inputs), body.get("parameters") or {}, labels)
    if isinstance(inputs, dict):
        return _compare(inputs)
    return Asked("/v1/embeddings", {"input": _texts(inputs), **_embedding_options(body)}, vectors)


def vectors(answer: Mapping[str, Any]) -> list[list[float]]:
    """The embeddings in the order of their texts."""
    return [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]


def _texts(inputs: Any) -> str | list[str]:
    if isinstance(inputs, str) and inputs:
        return inputs
    if isinstance(inputs, list) and inputs and all(isinstance(item, str) for item in inputs):
        return inputs
    raise Invalid("`inputs` must be a non-empty string or a list of strings")


def _embedding_options(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"encoding_format": "float"}
    if body.get("dimensions") is not None:
        found["dimensions"] = body["dimensions"]
    if body.get("normalize") is not None:
        found["use_activation"] = body["normalize"]
    if body.get("truncate"):
        found["truncate_prompt_tokens"] = -1
    return found


def _compare(inputs: Mapping[str, Any]) -> Asked:
    source, others = inputs.get("source_sentence"), inputs.get("sentences")
    if not isinstance(source, str) or not source or not isinstance(others, list) or not others:
        raise Invalid('`inputs` must be {"source_sentence": text, "sentences": [text, ...]}, a non-empty string or a list of strings')
    texts = _texts([source, *others])
    return Asked("/v1/embeddings", {"input": texts, "encoding_format": "float"}, _similarities)


def _similarities(answer: Mapping[str, Any]) -> list[float]:
    """The cosines of the first vector with the others."""
    first, *others = vectors(answer)
    return [_cosine(first, other) for other in others]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    length = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0


def _classify(texts: str | list[str], parameters: Any, labels: Mapping[int, str]) -> Asked:
    if not isinstance(parameters, dict):
        raise Invalid("`parameters` must be an object")
    applied, most = parameters.get("function_to_apply"), parameters.get("top_k")
    if applied not in (None, "softmax", "sigmoid", "none"):
        raise Invalid("`function_to_apply` must be softmax, sigmoid or none")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise Invalid("`top_k` must be a whole number, 1 or more")
    body: dict[str, Any] = {"input": texts}
    if applied in ("none", "sigmoid"):
        body["use_activation"] = False

    def read(answer: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
        rows = sorted(answer["data"], key=lambda item: item["index"])
        return [_scores(row["probs"], labels, sigmoid=applied == "sigmoid")[:most] for row in rows]

    return Asked("/classify", body, read)


def _scores(values: Sequence[float], labels: Mapping[int, str], *, sigmoid: bool) -> list[dict[str, Any]]:
    """Every class with its score, the best first."""
    scores = [1 / (1 + math.exp(-value)) for value in values] if sigmoid else values
    best_first = sorted(enumerate(scores), key=lambda item: -item[1])
    return [{"label": labels.get(number, f"LABEL_{number}"), "score": score} for number, score in best_first]
