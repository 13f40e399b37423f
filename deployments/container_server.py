"""The server process of a container: `python -m deployments.container_server OPTIONS -- WORD...`.

Brings the image, runs the container in the foreground, and removes it. The container is named after the replica's folder: what a
replica left behind that was ended by force is found and removed by the next one on the node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster import spec
from deployments import container_runtime, program_server
from deployments.container_runtime import Runtime

PROBE_S = 20.0
"""For a runtime to say that it works."""
STOP_S = 3
"""From SIGTERM to SIGKILL in the container; the supervisor's own patience is a little longer."""
LAST_LINES = 20


class CannotRun(Exception):
    """The message is for the log."""


class Container:
    """program_server.Program of a container."""

    def __init__(self, given: argparse.Namespace, environment: Mapping[str, str], folder: Path) -> None:
        """`folder` is the replica's own."""
        self._given = given
        self._environment = program_server.program_environment(environment)
        self._credentials = [self._environment.pop(name, "") for name in spec.REGISTRY_SECRETS]
        self._registry = self._environment.pop(spec.REGISTRY_SERVER, "")
        self._own = program_server.inherited(environment)
        self._settings = environment
        self._folder = folder
        self._name = f"moorage-{folder.name}"
        self._runtime: Runtime | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._runs = False

    async def run(self, port: int) -> int:
        """Pulls the image and runs the container to its end."""
        try:
            self._runtime = await self._find()
            await self._reap(self._runtime)
            image = container_runtime.full_name(self._given.image)
            await self._bring(self._runtime, image)
            program_server.say("starting the container")
            words, variables = container_runtime.run(self._runtime, self._container(image, port))
        except (CannotRun, ValueError) as exc:
            program_server.say(str(exc))
            return program_server.CANNOT_START
        self._runs = True
        self._process = await program_server.start(words, {**self._own, **variables})
        return program_server.CANNOT_START if self._process is None else await program_server.ended(self._process)

    async def stop(self) -> None:
        """SIGTERM to the container's server, then SIGKILL; a pull is broken off."""
        if self._process is None or self._process.returncode is not None or self._runtime is None:
            return
        if not self._runs:
            self._process.terminate()
            return
        await self._ask((*self._runtime.words, "stop", "--time", str(STOP_S), self._name), STOP_S + 1)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 1)
            return
        await self._ask((*self._runtime.words, "rm", "--force", self._name))

    def _container(self, image: str, port: int) -> container_runtime.Container:
        visible = self._settings.get("CUDA_VISIBLE_DEVICES", "") if self._given.gpus else ""
        return container_runtime.Container(
            name=self._name,
            image=image,
            folder=self._folder,
            port=port,
            inner_port=self._given.container_port,
            environment=self._environment,
            model=self._given.model,
            devices=tuple(device for device in visible.split(",") if device),
            entrypoint=self._given.entrypoint,
            words=tuple(self._given.words),
        )

    async def _find(self) -> Runtime:
        """The first one that works. Raises CannotRun, ValueError."""
        tried = container_runtime.candidates(self._settings)
        for runtime in tried:
            if shutil.which(runtime.words[0]) and (await self._ask((*runtime.words, "version"), PROBE_S))[0] == 0:
                return runtime
        names = " or ".join(runtime.words[0] for runtime in tried)
        raise CannotRun(f"no podman or docker works on this node (tried {names})")

    async def _reap(self, runtime: Runtime) -> None:
        """Removes containers whose replicas are gone."""
        _, names = await self._ask(container_runtime.of_replicas(runtime, self._folder.parent))
        for name in names:
            code, labels = await self._ask(container_runtime.folder_of(runtime, name))
            if code == 0 and labels and container_runtime.is_orphan(Path(labels[0])):
                program_server.say(f"removing the container {name}, whose replica is gone")
                await self._ask((*runtime.words, "rm", "--force", name))

    async def _bring(self, runtime: Runtime, image: str) -> None:
        """Raises CannotRun. An image that is on the node serves where its name cannot mean another, and where the registry is away."""
        there = (await self._ask((*runtime.words, "image", "inspect", image)))[0] == 0
        if there and container_runtime.is_fixed(image):
            return
        if image.startswith(container_runtime.ON_THIS_NODE):
            raise CannotRun(f"image not found: {image} is not on this node")
        program_server.say(f"pulling {image}")
        username, password = self._credentials
        known = bool(username) and container_runtime.is_registry_of(image, self._registry)
        if username and not known:
            program_server.say("the credentials are for another registry: the image is pulled without them")
        authority = container_runtime.write_authority(self._folder, image, username, password) if known else None
        try:
            code, lines = await self._ask(container_runtime.pull(runtime, image, authority), None, shown=True)
        finally:
            if authority is not None:
                shutil.rmtree(authority)
        if code == 0:
            return
        why = container_runtime.why_not_pulled(image, lines)
        if not there or not why.startswith("the image could not be pulled"):
            raise CannotRun(why)
        program_server.say(f"the copy on this node is used: {lines[-1] if lines else ''}")

    async def _ask(self, words: tuple[str, ...], timeout: float | None = PROBE_S, *, shown: bool = False) -> tuple[int, list[str]]:
        """Exit code and last lines of a command of the runtime; `shown` also writes them to the log. 124 = it took too long."""
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if shown else asyncio.subprocess.DEVNULL,
            env=self._own,
        )
        if shown:
            self._process = process
        lines: list[str] = []
        try:
            async with asyncio.timeout(timeout):
                assert process.stdout is not None
                async for line in process.stdout:
                    lines.append(line.decode(errors="replace").rstrip())
                    if shown:
                        sys.stdout.write(lines[-1] + "\n")
                        sys.stdout.flush()
                return await process.wait(), lines[-LAST_LINES:]
        except TimeoutError:
            process.kill()
            return 124, lines[-LAST_LINES:]


def main() -> int:
    """Exit code: the container's."""
    parser = argparse.ArgumentParser(description="Serves a container behind the guard")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--health-route", required=True)
    parser.add_argument("--max-concurrency", required=True, type=int)
    parser.add_argument("--image", required=True)
    parser.add_argument("--container-port", required=True, type=int)
    parser.add_argument("--model", default="")
    parser.add_argument("--gpus", action="store_true")
    parser.add_argument("--entrypoint", default="")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    program = Container(given, dict(os.environ), Path.cwd())
    serving = program_server.serve(program, given.host, given.port, health_route=given.health_route, max_concurrency=given.max_concurrency)
    return asyncio.run(serving)


if __name__ == "__main__":
    sys.exit(main())
