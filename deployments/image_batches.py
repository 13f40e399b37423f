"""Images that wait are made together where their shape allows it, by one thread, the oldest first.

A request whose client has left is dropped before its turn comes. What makes images is a `Painter`.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from deployments.image_requests import Shape


class TooLarge(Exception):
    """The images do not fit the accelerator's memory."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image to make."""

    prompt: str
    negative: str | None
    seed: int


class Painter(Protocol):
    """The pipeline. Called in one thread, never twice at once."""

    def paint(self, shape: Shape, pictures: Sequence[Picture], abandoned: Callable[[], bool]) -> Sequence[Any]:
        """One image per picture. Raises TooLarge. May stop early, with anything, once `abandoned()` is true."""
        ...


@dataclasses.dataclass(frozen=True)
class _Job:
    shape: Shape
    picture: Picture
    result: asyncio.Future[Any]


class Batches:
    """`make` from any task; `run` once, until cancelled."""

    def __init__(self, painter: Painter, most: int) -> None:
        """`most` images at once."""
        self._painter = painter
        self._most = most
        self._waiting: collections.deque[_Job] = collections.deque()
        self._news = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "painter")
        self.sizes: list[int] = []
        """How many images each of the last batches had."""

    async def make(self, shape: Shape, pictures: Sequence[Picture]) -> list[Any]:
        """The images, in order. Raises TooLarge, and whatever the painter raises; cancelling gives the places up."""
        loop = asyncio.get_running_loop()
        jobs = [_Job(shape, picture, loop.create_future()) for picture in pictures]
        self._waiting.extend(jobs)
        self._news.set()
        try:
            return list(await asyncio.gather(*(job.result for job in jobs)))
        finally:
            for job in jobs:
                job.result.cancel()

    async def run(self) -> None:
        """For ever: one batch after the other."""
        while True:
            await self._news.wait()
            batch = self._next()
            if batch:
                await self._paint(batch)
            else:
                self._news.clear()

    def waiting(self) -> int:
        """Images whose turn has not come."""
        return sum(not job.result.done() for job in self._waiting)

    def _next(self) -> list[_Job]:
        """The oldest job, and the next ones of its shape."""
        batch: list[_Job] = []
        others: collections.deque[_Job] = collections.deque()
        while self._waiting:
            job = self._waiting.popleft()
            if job.result.done():
                continue  # its client left
            fits = not batch or (len(batch) < self._most and job.shape == batch[0].shape)
            (batch if fits else others).append(job)
        self._waiting = others
        return batch

    async def _paint(self, batch: Sequence[_Job]) -> None:
        loop = asyncio.get_running_loop()
        self.sizes = [*self.sizes[-99:], len(batch)]
        pictures = [job.picture for job in batch]
        try:
            images = await loop.run_in_executor(
                self._thread, self._painter.paint, batch[0].shape, pictures, lambda: all(job.result.done() for job in batch)
            )
        except TooLarge as exc:
            if len(batch) > 1:
                for job in batch:
                    await self._paint([job])
                return
            _settle(batch, exc)
        except Exception as exc:  # noqa: BLE001 - whatever a pipeline raises is those requests' answer; the next batch is another matter
            _settle(batch, exc)
        else:
            for job, image in zip(batch, images, strict=True):
                if not job.result.done():
                    job.result.set_result(image)


def _settle(batch: Sequence[_Job], error: Exception) -> None:
    for job in batch:
        if not job.result.done():
            job.result.set_exception(error)
