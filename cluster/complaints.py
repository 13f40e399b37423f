"""What is wrong with an input, in one sentence: pydantic's findings as an InvalidRequest with the field's dotted path.

Values are never repeated: they may be secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cluster import errors

LONGEST = 600
Model = TypeVar("Model", bound=BaseModel)


def invalid(found: Sequence[Mapping[str, Any]], model: type[BaseModel] | None = None) -> errors.InvalidRequest:
    """The first finding as an error. `found` is `ValidationError.errors()`; `model` is where the path begins, for suggestions."""
    first = found[0]
    path = tuple(first["loc"])
    param = ".".join(str(part) for part in path)[:200]
    return errors.InvalidRequest(_sentence(first, path, param, model)[:LONGEST], param=param or None)


def read(model: type[Model], wire: Mapping[str, Any]) -> Model:
    """A JSON object (wire names only) as `model`. Raises InvalidRequest with the first field that is wrong."""
    try:
        return model.model_validate(wire, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise invalid(exc.errors(include_url=False, include_input=False), model) from None


def _sentence(finding: Mapping[str, Any], path: tuple[Any, ...], param: str, model: type[BaseModel] | None) -> str:
    kind, text = finding["type"], str(finding["msg"])
    if kind == "extra_forbidden":
        return _unknown(path, param, model)
    if kind == "missing":
        return f"{param} is missing: it is required."
    if kind == "value_error":
        text = text.removeprefix("Value error, ")
        return f"{param}: {text}." if param else f"{text[:1].upper()}{text[1:]}."
    return f"{param}: {text[:1].lower()}{text[1:]}." if param else f"{text}."


def _unknown(path: tuple[Any, ...], param: str, model: type[BaseModel] | None) -> str:
    known = _fields(model, path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    hint = f": did you mean {close[0]}?" if close else (f": known are {', '.join(sorted(known))}." if known else ".")
    return f"{param} is not a known field{hint}"


def _fields(model: type[BaseModel] | None, path: Sequence[Any]) -> list[str]:
    """Wire names of the fields of the object at `path`, none when that is no object of ours."""
    for part in path:
        if model is None:
            return []
        if isinstance(part, int):  # an item of a list of them
            continue
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        model = _model_in(field.annotation) if field is not None else None
    return [field.alias or name for name, field in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The resource that a field holds, also as `Resource | None`."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), None)
