"""What is known before anything starts, put together: the task, what fits where, what it costs, what to watch out for. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cluster import errors, fit, hardware, model_shape, model_tasks, surveyor, vllm_models
from cluster import spec as specs
from cluster.model_facts import Facts

HOURS_A_MONTH = 730
Measurements = Mapping[tuple[str, str], fit.Measured]
"""(instance type, size) -> what was measured there."""


@dataclasses.dataclass(frozen=True)
class Foresight:
    """A model's fit of every instance; `chosen` is that of the endpoint's own, None where it is not listed."""

    facts: Facts
    shape: model_shape.Shape
    settings: fit.Settings
    fits: tuple[fit.Fit, ...]
    chosen: fit.Fit | None


def with_task(spec: specs.EndpointSpec, facts: Facts | None) -> specs.EndpointSpec:
    """The spec with the task that the repository tells, where the user told none."""
    task = model_tasks.infer(facts) if facts is not None and spec.model.task is None else None
    if task is None:
        return spec
    return spec.model_copy(update={"model": spec.model.model_copy(update={"task": task})})


def foresee(spec: specs.EndpointSpec, facts: Facts, rows: Sequence[hardware.Instance], measured: Measurements) -> Foresight:
    """How the model fits. Raises InvalidRequest for an architecture that vLLM cannot serve, naming it."""
    shape, settings = model_shape.of(facts.config), fit.Settings.of(spec.model)
    refusal = vllm_models.refusal(shape.architecture) if shape.architecture else ""
    if refusal:
        raise errors.InvalidRequest(refusal, param="model.repository")
    fits = fit.recommend(shape, facts, settings, rows, measured) if facts.known else ()
    place = (spec.compute.instance_type, spec.compute.instance_size)
    chosen = next((one for one in fits if (one.instance.type, one.instance.size) == place), None)
    return Foresight(facts, shape, settings, fits, chosen)


def warnings(seen: Foresight, *, patient: bool = False) -> list[str]:
    """What the user should know. `patient`: somebody asked to have it looked at, and wants to know that it could not be."""
    found = []
    if seen.facts.problem and (patient or seen.facts.problem != surveyor.UNREACHABLE):
        found.append(f"{seen.facts.problem}: {seen.facts.message}")
    if told := vllm_models.warning(seen.shape.architecture):
        found.append(told)
    if seen.chosen is not None and seen.chosen.fits is False:
        found.append(_with_remedies(seen.chosen))
    if seen.chosen is not None and seen.chosen.fits and seen.chosen.needs_parallel:
        one = seen.chosen
        found.append(
            f"The {seen.shape.heads} attention heads cannot be divided over {one.instance.count} accelerators: set "
            f"model.image.vLLM.tensorParallelSize to {one.tensor} and dataParallelSize to {one.data}."
        )
    return found


def wire(seen: Foresight) -> dict[str, Any]:
    """`fit` of a plan: the model, the chosen instance, and every instance with its place by cost and by performance."""
    places = fit.ranked(seen.fits)
    return {
        "model": fit.summary(seen.shape, seen.facts, seen.settings) | {"task": model_tasks.infer(seen.facts)},
        "instance": _row(seen.chosen, seen, places) if seen.chosen else None,
        "instances": [_row(one, seen, places) for one in sorted(seen.fits, key=lambda one: _order(one, places))],
    }


def cost(spec: specs.EndpointSpec, rows: Sequence[hardware.Instance]) -> dict[str, Any]:
    """Of the replicas that run all the time, at least one counted; a month has 730 hours. In the operator's currency."""
    known = hardware.of_type(rows, spec.compute.instance_type)
    row = hardware.find(rows, spec.compute.instance_type, spec.compute.instance_size)
    count = int(spec.compute.instance_size.removeprefix("x"))
    price = row.price_per_hour if row else (known.price_per_hour / known.count * count if known else 0.0)
    scaling = spec.compute.scaling
    replicas = max(1, scaling.min_replica)
    return {
        "perHour": round(price * replicas, 4),
        "perMonth": round(price * replicas * HOURS_A_MONTH, 2),
        "replicas": replicas,
        "perHourAtMost": round(price * scaling.max_replica, 4),
        "atZero": scaling.min_replica == 0,
    }


def _order(one: fit.Fit, places: Mapping[tuple[str, str], Mapping[str, int]]) -> tuple[float, str, int]:
    place = places.get((one.instance.type, one.instance.size), {})
    return (place.get("cost", 10**6 + (one.fits is False)), one.instance.type, one.instance.count)


def _row(one: fit.Fit, seen: Foresight, places: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, Any]:
    return {
        "instanceType": one.instance.type,
        "instanceSize": one.instance.size,
        "fits": one.fits,
        "verdict": one.verdict,
        "remedies": list(one.remedies),
        "modelSizeGb": round(one.weights / 1e9, 2),
        "kvCacheSizeGb": round(one.cache / 1e9, 2),
        "totalGb": round((one.weights + one.cache) / 1e9, 2),
        "memoryGb": round(one.memory / 1e9, 2),
        "quantization": fit.quantization_of(seen.shape, seen.settings),
        "maxModelLen": one.max_model_len or None,
        "batchSize": int(one.concurrency),
        "shortBatchSize": int(one.concurrency_4k),
        "tensorParallelSize": one.tensor,
        "dataParallelSize": one.data,
        "pricePerHour": one.instance.price_per_hour,
        "status": one.instance.status,
        "measured": one.measured,
        "ranking": dict(places.get((one.instance.type, one.instance.size), {})) or None,
    }


def _with_remedies(one: fit.Fit) -> str:
    place = f"{one.instance.type} {one.instance.size}"
    ways = f" What would fit: {', or '.join(one.remedies)}." if one.remedies else ""
    return f"{place}: {one.verdict}{ways}"
