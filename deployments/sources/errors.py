"""Why a model could not be brought here: one error with a reason that the endpoint's state and events show."""

from __future__ import annotations

from typing import Literal

from cluster import errors

Reason = Literal[
    "GatedRepository",
    "RepositoryNotFound",
    "RevisionNotFound",
    "BucketNotFound",
    "AccessDenied",
    "DiskFull",
    "SourceUnreachable",
    "ChecksumMismatch",
    "PickleRefused",
    "RemoteCodeRefused",
    "PathNotAllowed",
    "PathNotFound",
    "NoWeights",
    "NotAnAdapter",
    "UnsafeName",
]


class SourceError(errors.MoorageError):
    """The model could not be brought to this node.

    `permanent`: trying again without a change of the endpoint, the source or the disk cannot help.
    """

    code = "model_source"

    def __init__(self, message: str, reason: Reason, permanent: bool = True) -> None:
        super().__init__(message)
        self.reason = reason
        self.permanent = permanent

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, Reason, bool]]:
        """Replicas' errors travel between processes, which exceptions with more than one argument do not by default."""
        return type(self), (self.message, self.reason, self.permanent)


class SourceChanged(SourceError):
    """The source is no longer what it was when it was listed: list it again."""

    def __init__(self, message: str, reason: Reason = "ChecksumMismatch", permanent: bool = True) -> None:
        super().__init__(message, reason, permanent)


class Cancelled(Exception):
    """The caller no longer wants the model; what was downloaded stays for the next try."""
