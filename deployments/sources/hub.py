"""Models of the Hugging Face Hub or a mirror of it, by the stock client: listing, access, addresses and its errors.

The bytes are read here in ranges instead of by `hf_hub_download`, which since huggingface_hub 1.0 starts a file again
from its first byte when the process that was downloading it died.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import httpx2
from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, validate_repo_id  # type: ignore[attr-defined]  # its __all__ is made at run time

from deployments.sources import addresses
from deployments.sources.errors import SourceError
from deployments.sources.listing import File, Listing
from deployments.sources.source import CHUNK, Content

TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
LISTING_TIMEOUT_S = 20.0
guarded: contextvars.ContextVar[bool] = contextvars.ContextVar("guarded", default=False)
"""Whether the requests of this thread are to an address that an endpoint named: each is looked at, redirects too."""


ADDRESS = "the integration's endpoint (HF_ENDPOINT)"


class Hub:
    """One repository at one revision (None = its main branch). `token` None: anonymous, whoever is logged in on this node.

    `trusted`: the operator chose the address. Raises SourceError RepositoryNotFound for a name that cannot be one, AccessDenied for
    an address that no Hub may have.
    """

    def __init__(self, repository: str, revision: str | None, *, token: str | None, endpoint: str | None, trusted: bool = True) -> None:
        if not trusted:
            addresses.check(endpoint or "", ADDRESS)
        self._trusted = trusted
        self._repository, self._revision, self._endpoint = repository, revision, endpoint
        self._token: str | bool = token or False  # False also keeps the client from using the node's own login
        self._commit = ""
        with self._translated():
            validate_repo_id(repository)

    def list(self) -> Listing:
        """The repository's files at the commit that the revision is now."""
        api = HfApi(endpoint=self._endpoint, token=self._token)
        with self._translated(), _guarding(not self._trusted):
            info = api.model_info(self._repository, revision=self._revision, files_metadata=True, timeout=LISTING_TIMEOUT_S)
            self._commit = info.sha or ""
            if not self._commit:
                raise ValueError("no commit")
            if info.gated:  # listing those is open to everybody, and a copy may be here already
                api.auth_check(self._repository)
            return Listing(self._commit, tuple(self._file(sibling) for sibling in info.siblings or ()), info.pipeline_tag or "")

    def describe(self, file: File) -> File:
        """As listed: the Hub's listing has the checksums."""
        return file

    @contextlib.contextmanager
    def read(self, file: File, start: int, stop: int) -> Iterator[Content]:
        """By a ranged GET of the listed commit; redirects to the Hub's storage lose the token on the way."""
        url = hf_hub_url(self._repository, file.path, revision=self._commit, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
        with contextlib.ExitStack() as stack:
            with self._translated(), _guarding(not self._trusted):
                response = stack.enter_context(get_session().stream("GET", url, headers=headers, timeout=TIMEOUT))
                if response.is_error:
                    response.read()
                hf_raise_for_status(response)
                begin = _start(response)
            yield Content(begin, self._chunks(response))

    def _chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        with self._translated():
            yield from response.iter_bytes(CHUNK)

    def _file(self, sibling: RepoSibling) -> File:
        if sibling.size is None:
            raise ValueError("no sizes")
        if sibling.lfs is not None:
            return File(sibling.rfilename, sibling.size, sha256=sibling.lfs.sha256)
        return File(sibling.rfilename, sibling.size, git_sha1=sibling.blob_id or "")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The client's errors as SourceError. The original is dropped: its text has addresses signed for this download."""
        try:
            yield
        except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError) as error:
            raise self._refusal(error) from None
        except (httpx2.HTTPError, hub_errors.OfflineModeIsEnabled) as error:
            raise self._unreachable(type(error).__name__) from None
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreachable(f"it does not answer as the Hub does ({type(error).__name__})") from None

    def _refusal(self, error: Exception) -> SourceError:
        name, revision = self._repository, self._revision or "main"
        status = error.response.status_code if isinstance(error, hub_errors.HfHubHTTPError) else 400
        with_token = "the token given" if self._token else "no token (set the secret HF_TOKEN)"
        match error:
            case hub_errors.GatedRepoError():
                return SourceError(
                    f"{name} is gated and {with_token} has no access: accept its conditions on the Hub with the token's account",
                    "GatedRepository",
                )
            case hub_errors.DisabledRepoError():
                return SourceError(f"the Hub has disabled {name}", "AccessDenied")
            case hub_errors.RepositoryNotFoundError():
                return SourceError(f"there is no repository {name} on the Hub, or {with_token} may not see it", "RepositoryNotFound")
            case hub_errors.HFValidationError():
                return SourceError(f"{name!r} is not a repository of the Hub: write it as owner/name", "RepositoryNotFound")
            case hub_errors.RevisionNotFoundError():
                return SourceError(f"{name} has no revision {revision!r}: name a branch, tag or commit of it", "RevisionNotFound")
            case hub_errors.RemoteEntryNotFoundError():
                return SourceError(f"a file of {name} is listed but not there", "SourceUnreachable", permanent=False)
        if status in (401, 403):
            return SourceError(f"the Hub refuses {name} (HTTP {status}): {with_token} is not valid for it", "AccessDenied")
        if status == 404:
            return SourceError(f"there is no repository {name} on the Hub", "RepositoryNotFound")
        return self._unreachable(f"HTTP {status}")

    def _unreachable(self, detail: str) -> SourceError:
        where = self._endpoint or "the Hugging Face Hub"
        return SourceError(f"{where} cannot be reached for {self._repository}: {detail}", "SourceUnreachable", permanent=False)


@contextlib.contextmanager
def _guarding(wanted: bool) -> Iterator[None]:
    """The client is shared by all of this process, so its hook is told by whom a request is made."""
    client = get_session()
    if _look_at not in client.event_hooks["request"]:
        client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _look_at]}
    before = guarded.set(wanted)
    try:
        yield
    finally:
        guarded.reset(before)


def _look_at(request: httpx2.Request) -> None:
    if guarded.get():
        addresses.check(str(request.url.copy_with(query=None)), ADDRESS)


def _start(response: httpx2.Response) -> int:
    """The position of the first byte that an answer brings. Raises ValueError for a Content-Range that cannot be read."""
    if response.status_code != httpx2.codes.PARTIAL_CONTENT:
        return 0
    return int(response.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
