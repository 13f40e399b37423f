"""Models that lie on the node already: an absolute path in a folder the operator allowed, used where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployments.sources import inspection, listing
from deployments.sources.errors import SourceError
from deployments.sources.listing import MANIFEST, MAX_FILES, File, Rules


def open_path(path: str, allowed: Sequence[Path], rules: Rules) -> Path:
    """The folder at `path`, after the checks that every model passes.

    Raises SourceError: those of `find`, `listing` and `inspection`.
    """
    folder, files = find(path, allowed)
    chosen = listing.choose(files, rules)
    _refuse_code(files, rules)
    inspection.inspect(folder, (file.path for file in chosen), rules)
    return folder


def find(path: str, allowed: Sequence[Path]) -> tuple[Path, tuple[File, ...]]:
    """The folder at `path` and its files. Raises SourceError PathNotAllowed (after following links), PathNotFound."""
    roots = [root.resolve() for root in allowed]
    try:
        folder = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):  # the last is what Python 3.11 says of links in a circle
        raise _not_allowed(path) from None
    visible = any(folder.is_relative_to(root) and not _hidden(folder.relative_to(root)) for root in roots)
    if not visible:  # before anything else: what there is on this node is nobody's to find out
        raise _not_allowed(path)
    if not folder.is_dir():
        raise SourceError(f"there is no folder {path} on this node: put the model there, on every node that may serve it", "PathNotFound")
    return folder, tuple(_files(folder, roots))


def _files(folder: Path, roots: Sequence[Path]) -> Iterator[File]:
    count = 0
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(base, name)
            if name.startswith(".") or name == MANIFEST:
                continue
            if path.is_symlink() and not _within(path, roots):
                raise SourceError(f"{path.relative_to(folder)} links to a place that is not allowed", "PathNotAllowed")
            count += 1
            if count > MAX_FILES:
                raise SourceError(f"{folder} has over {MAX_FILES} files, which is not one model: name the model's own folder", "NoWeights")
            if path.is_file():
                yield File(path.relative_to(folder).as_posix(), path.stat().st_size)


def _refuse_code(files: Sequence[File], rules: Rules) -> None:
    """Python files of a source stay there; those of a folder used in place are within the engine's reach."""
    code = next((file.path for file in files if file.path.endswith(".py")), None)
    if code and not rules.trust_remote_code:
        raise inspection.remote_code_refused(f"{code}; or remove it")


def _hidden(path: Path) -> bool:
    """Below a folder with a dot, where the model cache keeps what is not complete."""
    return any(part.startswith(".") for part in path.parts)


def _within(link: Path, roots: Sequence[Path]) -> bool:
    try:
        target = link.resolve()
    except (OSError, RuntimeError):
        return False
    return any(target.is_relative_to(root) for root in roots)


def _not_allowed(path: str) -> SourceError:
    return SourceError(
        f"{path} is not in a folder that models may lie in: ask the operator to add its folder to MOORAGE_MODEL_PATHS", "PathNotAllowed"
    )
