"""Where models come from: the Hugging Face Hub, S3 and compatible stores, a path on the node.

`fetch` is all that the engines use, `look` what a plan needs. A model is served from a complete local folder, never from one being written.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.model_facts import Facts
from deployments.sources import local
from deployments.sources import survey as surveys
from deployments.sources.copies import Copies
from deployments.sources.download import download
from deployments.sources.errors import Reason, SourceError
from deployments.sources.listing import AdapterRules, Rules
from deployments.sources.run import Patience, Run
from deployments.sources.source import Source

__all__ = ["AdapterRules", "Patience", "Reason", "Rules", "SourceError", "fetch", "look"]

CANCEL_WAIT_S = 5.0


async def fetch(
    model: Mapping[str, Any],
    *,
    cache: Path,
    allowed: Sequence[Path],
    environment: Mapping[str, str],
    hub_endpoint: str | None,
    progress: Callable[[int, int | None], None],
    patience: Patience = Patience(),
    rules: Rules | None = None,
) -> Path:
    """A local folder with the model that `model` (`cluster.spec.Model.wire()`) names, which an engine can load.

    `rules` say what is brought and what is refused, where that is not what `model` says: AdapterRules for an adapter.

    `environment` has HF_TOKEN, HF_ENDPOINT (an address that the endpoint named), MOORAGE_HF_ENDPOINT and AWS_... variables;
    nothing else of this process's is used for access. `progress(done, total)` in bytes is called in the event loop, about four times
    a second at most. Blocking work is done in threads; cancelling ends it and leaves what was received for the next try. Raises
    SourceError.
    """
    loop = asyncio.get_running_loop()

    def report(done: int, total: int | None) -> None:
        loop.call_soon_threadsafe(progress, done, total)

    run = Run(report, patience)
    work = asyncio.ensure_future(asyncio.to_thread(_fetch, model, cache, allowed, environment, hub_endpoint, run, rules or Rules.of(model)))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        run.stop()
        await asyncio.wait([work], timeout=CANCEL_WAIT_S)  # a thread in the middle of a read notices a little later
        work.add_done_callback(_forget)
        raise


def _fetch(
    model: Mapping[str, Any],
    cache: Path,
    allowed: Sequence[Path],
    environment: Mapping[str, str],
    hub_endpoint: str | None,
    run: Run,
    rules: Rules,
) -> Path:
    repository, revision = model.get("repository") or "", model.get("revision") or None
    if repository.startswith("/"):
        return local.open_path(repository, [*allowed, cache], rules)
    source = _remote(repository, revision, environment, hub_endpoint)
    if repository.startswith("s3://"):
        from deployments.sources.s3 import endpoint_of, parse  # noqa: PLC0415 - see `_remote`

        copies = Copies(cache / "s3" / parse(repository)[0] / _digest(endpoint_of(environment) or "", repository.rstrip("/")))
        question = ("", repr(rules), _credential(environment, "AWS_SECRET_ACCESS_KEY"))
        return download(source, copies, rules, question, run)
    copies = Copies(cache / "hub" / repository.replace("/", "--") / _digest(_hub_address(environment, hub_endpoint) or ""))
    return download(source, copies, rules, (revision or "main", repr(rules), _credential(environment, "HF_TOKEN")), run)


def look(
    model: Mapping[str, Any], *, cache: Path, allowed: Sequence[Path], environment: Mapping[str, str], hub_endpoint: str | None
) -> Facts:
    """What can be known of the model that `fetch` would bring, by its listing and small files alone. Blocks. Raises SourceError."""
    repository, revision, rules = model.get("repository") or "", model.get("revision") or None, Rules.of(model)
    if repository.startswith("/"):
        return surveys.survey(surveys.Folder(repository, [*allowed, cache]), repository, revision, rules)
    return surveys.survey(_remote(repository, revision, environment, hub_endpoint), repository, revision, rules)


def _remote(repository: str, revision: str | None, environment: Mapping[str, str], hub_endpoint: str | None) -> Source:
    if repository.startswith("s3://"):
        from deployments.sources.s3 import Bucket  # noqa: PLC0415 - each client takes half a second of a start

        _refuse_revision(repository, revision)
        return Bucket(repository, environment)
    from deployments.sources.hub import Hub  # noqa: PLC0415 - see above

    address = _hub_address(environment, hub_endpoint)
    return Hub(repository, revision, token=environment.get("HF_TOKEN"), endpoint=address, trusted=not environment.get("HF_ENDPOINT"))


def _hub_address(environment: Mapping[str, str], hub_endpoint: str | None) -> str | None:
    """The endpoint's own address, else the operator's."""
    return (environment.get("HF_ENDPOINT") or hub_endpoint or environment.get("MOORAGE_HF_ENDPOINT") or "").rstrip("/") or None


def _refuse_revision(repository: str, revision: str | None) -> None:
    if revision not in (None, "main"):
        raise SourceError(
            f"{repository} has no revisions: leave model.revision out, and name the prefix of that version", "RevisionNotFound"
        )


def _credential(environment: Mapping[str, str], name: str) -> str:
    """Tells credentials apart without keeping them."""
    return _digest(environment.get(name) or "")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _forget(work: asyncio.Future[Path]) -> None:
    """Takes the outcome of work that nobody waits for, which asyncio would complain about otherwise."""
    if not work.cancelled():
        work.exception()
