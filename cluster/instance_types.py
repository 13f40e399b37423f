"""The operator's instance types: a YAML file over what `cluster.hardware` works out from the nodes by itself.

A type of a name that is there by itself (`local-cpu`, `nvidia-h200`) changes that one; any other name adds one.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from cluster import complaints, errors

log = logging.getLogger(__name__)

SIZES = tuple(f"x{2**power}" for power in range(10))
OWN_GPU = "nvidia-"
"""GPU types that are there by themselves are called so."""
FILE = "instance-types.yaml"
Status = Literal["available", "low_availability", "not_available", "reserved", "deprecated"]


class BadInstanceTypes(errors.MoorageError):
    """The file of instance types cannot be used."""

    code = "bad_instance_types"


class InstanceType(BaseModel):
    """One type of the file. What is left out is worked out from the nodes. Per accelerator, or per `x1` of a type without."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=False)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")
    vendor: Literal["local"] = "local"
    region: Literal["local"] = "local"
    accelerator: str | None = Field(None, min_length=1, max_length=64)
    """Ray's accelerator type (`H200`); left out, the type has no accelerator, unless its name is `nvidia-...`."""
    cpus: float | None = Field(None, gt=0)
    """What a replica claims: of the node's CPUs."""
    memory_gb: float | None = Field(None, gt=0)
    gpu_memory_gb: float | None = Field(None, gt=0)
    price_per_hour: float | dict[str, float] = Field(0.0, union_mode="left_to_right")
    """In the operator's currency: of `x1`, other sizes cost a multiple; or one price per size."""
    sizes: tuple[str, ...] = ()
    """Those that are offered; empty = doubling up to what the cluster has."""
    status: Status | None = None
    """Said instead of what is free now. `reserved` and `not_available` take no new endpoints, `deprecated` warns them."""

    @field_validator("sizes")
    @classmethod
    def _are_sizes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for size in value:
            _check_size(size)
        return tuple(sorted(set(value), key=lambda size: int(size[1:])))

    @field_validator("price_per_hour")
    @classmethod
    def _is_price(cls, value: float | dict[str, float]) -> float | dict[str, float]:
        prices = value if isinstance(value, dict) else {"x1": value}
        for size, price in prices.items():
            _check_size(size)
            if not 0 <= price < float("inf"):
                raise ValueError(f"a price is a number from 0 up, not {price:g}")
        return value

    @property
    def gpu(self) -> bool:
        """Whether it is counted in GPUs."""
        return self.accelerator is not None or self.name.startswith(OWN_GPU)

    def price(self, count: int) -> float:
        """Per hour, of size `x<count>`."""
        if not isinstance(self.price_per_hour, dict):
            return self.price_per_hour * count
        known = self.price_per_hour
        return known.get(f"x{count}", known.get("x1", 0.0) * count)

    @property
    def priced(self) -> bool:
        """Whether any size of it costs anything."""
        known = self.price_per_hour
        return any(known.values()) if isinstance(known, dict) else known > 0


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=False)

    instance_types: tuple[InstanceType, ...] = ()
    defaults: bool = True


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """What the operator says about instance types, by name. `defaults`: types that the file does not name are offered too."""

    types: Mapping[str, InstanceType] = dataclasses.field(default_factory=dict)
    defaults: bool = True

    def gpu(self, name: str) -> bool | None:
        """Whether the type of that name has accelerators; None when the operator said nothing of it."""
        known = self.types.get(name)
        return None if known is None else known.gpu

    @property
    def priced(self) -> bool:
        """Whether anything costs anything."""
        return any(known.priced for known in self.types.values())


NONE = Catalogue()


def path_of(home: Path, named: Path | None) -> Path | None:
    """The file in force: the one named (MOORAGE_INSTANCE_TYPES), else the one in MOORAGE_HOME if there is one."""
    if named is not None:
        return named.expanduser()
    usual = home.expanduser() / FILE
    return usual if usual.is_file() else None


def read(path: Path) -> Catalogue:
    """The types that the file declares. Raises BadInstanceTypes with the file, the line and what would be right."""
    try:
        text = path.read_text()
    except (OSError, UnicodeError) as exc:
        raise BadInstanceTypes(f"{path} cannot be read: {getattr(exc, 'strerror', None) or 'it is not UTF-8 text'}.") from exc
    return parse(text, str(path))


def parse(text: str, name: str = "the file") -> Catalogue:
    """As `read`, of text."""
    try:
        found, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise BadInstanceTypes(f"{name}, line {line}: that is not YAML: {exc.problem}.") from exc
    except yaml.YAMLError as exc:
        raise BadInstanceTypes(f"{name} is not YAML: {' '.join(str(exc).split())}.") from exc
    if not isinstance(found or {}, dict):
        raise BadInstanceTypes(f"{name}, line 1: it must have `instanceTypes:`, a list of types.")
    try:
        read_file = _File.model_validate(found or {})
    except ValidationError as exc:
        first = complaints.invalid(exc.errors(), _File)
        raise BadInstanceTypes(f"{name}, line {_line(tree, exc.errors()[0]['loc'])}: {first.message}") from exc
    return _catalogue(read_file, name, tree)


class Watched:
    """The catalogue of the file in force, read again when the file has changed. A file that became wrong changes nothing."""

    def __init__(self, home: Path, named: Path | None) -> None:
        """As of `path_of`."""
        self._home, self._named = home, named
        self._lock = threading.Lock()
        self._seen: tuple[object, ...] | None = None
        self._known = NONE

    def __call__(self) -> Catalogue:
        """The newest one that could be read."""
        with self._lock:
            path = path_of(self._home, self._named)
            try:
                stat = path.stat() if path else None
                seen: tuple[object, ...] = (path, stat.st_mtime_ns, stat.st_size) if stat else (path,)
            except OSError:
                seen = (path, "gone")
            if seen != self._seen:
                self._seen = seen
                try:
                    self._known = read(path) if path else NONE
                except BadInstanceTypes as exc:
                    log.error("the instance types stay as they were: %s", exc.message)
            return self._known


def _catalogue(found: _File, name: str, tree: Any) -> Catalogue:
    types: dict[str, InstanceType] = {}
    for position, item in enumerate(found.instance_types):
        if item.name in types:
            line = _line(tree, ("instanceTypes", position, "name"))
            raise BadInstanceTypes(f"{name}, line {line}: there are two types called {item.name!r}.")
        types[item.name] = item
    return Catalogue(types, found.defaults)


def _check_size(size: str) -> None:
    if size not in SIZES:
        raise ValueError(f"there is no size {size[:20]!r}: sizes are {', '.join(SIZES[:5])} and so on, to {SIZES[-1]}")


def _line(tree: Any, path: Sequence[str | int]) -> int:
    """The line (from 1) of the deepest part of `path` that the YAML tree has."""
    node = tree
    line = node.start_mark.line if node is not None else 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
