"""From a repository or bucket to a complete local copy: list, choose, lock, check for room, bring, inspect, publish.

Configuration comes and is inspected before the weights, so that a model that is refused costs no long download.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployments.sources import inspection, listing
from deployments.sources.copies import Copies, Entry
from deployments.sources.errors import SourceChanged, SourceError
from deployments.sources.listing import File, Rules
from deployments.sources.run import Patience, Run, retrying
from deployments.sources.source import Source
from deployments.sources.transfer import Transfer, disk_full

LOCK_POLL_S = 0.25
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
NOT_KEPT = frozenset({"DiskFull", "PickleRefused", "RemoteCodeRefused", "NoWeights", "NotAnAdapter"})
"""After these a partial copy is removed: others need the room, or nobody will want it."""
RELISTINGS = 3
"""How often a source that changed during the download is listed again."""
HASTE = Patience(attempts=2)
"""With a complete copy at hand, a source that does not answer is not waited for."""


def download(source: Source, home: Copies, rules: Rules, question: Sequence[str], run: Run) -> Path:
    """A complete local copy of the source. Raises SourceError or Cancelled.

    `question` is what the answer depends on (revision, rules, credential): the copy that answered it last is served
    when the source cannot be reached, to those who could have got it themselves.
    """
    for _ in range(RELISTINGS):
        with _full_disk_told(), contextlib.suppress(SourceChanged):
            return _download(source, home, rules, question, run)
    raise SourceError("the source changes all the time: wait until its upload is complete", "ChecksumMismatch", permanent=False)


def _download(source: Source, home: Copies, rules: Rules, question: Sequence[str], run: Run) -> Path:
    last = home.recall(question)
    try:
        found = retrying(source.list, run, HASTE if last else None)
    except SourceError as error:
        if last is None or error.reason != "SourceUnreachable":
            raise
        return last
    chosen = listing.choose(found.files, rules)
    version = listing.variant(found.version, chosen)
    run.begin(sum(file.size for file in chosen))
    path = home.complete(version) or _obtain(source, home, rules, version, chosen, run)
    home.remember(question, version)
    run.at(sum(file.size for file in chosen))
    return path


def _obtain(source: Source, home: Copies, rules: Rules, version: str, chosen: Sequence[File], run: Run) -> Path:
    def waiting() -> None:
        run.at(home.received(version))
        run.wait(LOCK_POLL_S)

    with home.lock(version, waiting=waiting):
        if path := home.complete(version):  # by the one who held the lock before
            return path
        run.at(0)
        try:
            with _full_disk_told():
                return home.publish(version, _bring(source, home, rules, version, chosen, run))
        except SourceError as error:
            if error.reason in NOT_KEPT:
                home.drop_partial(version)
            raise


def _bring(source: Source, home: Copies, rules: Rules, version: str, chosen: Sequence[File], run: Run) -> list[Entry]:
    partial = home.partial(version)
    transfer = Transfer(source, home, partial, run)
    transfer.make_room(chosen)
    files = partial / "files"
    first = [file for file in chosen if file.path.endswith(".json")]
    rest = [file for file in chosen if not file.path.endswith(".json")]
    entries = transfer.bring(first)
    inspection.inspect(files, (file.path for file in first), rules)
    entries += transfer.bring(rest)
    inspection.inspect(files, (file.path for file in rest), rules)
    return entries


@contextlib.contextmanager
def _full_disk_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full("it ran full during the download") from error
        raise
