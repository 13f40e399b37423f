"""A small container image made on the spot, and a podman that can run it here, for tests of real containers."""

import dataclasses
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

IMAGE = "localhost/moorage-test:1"
SERVE = """#!/bin/sh
trap 'echo stopped; exit 0' TERM
echo "container: serving at $PORT with $*, token $TOKEN"
[ "$1" = fail ] && { echo "no settings in this container" >&2; exit 9; }
busybox httpd -f -p "127.0.0.1:$PORT" -h /www &
wait
"""
TOLD = """#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "GREETING=$GREETING TOKEN=$TOKEN PORT=$PORT MODEL_PATH=$MODEL_PATH PATH=$PATH REGISTRY=$REGISTRY_PASSWORD"
[ -d /repository ] && ls /repository && { touch /repository/x 2>/dev/null || echo read-only; }
[ "$REQUEST_METHOD" = POST ] && head -c "$CONTENT_LENGTH"
true
"""
LIMITS = "--ulimit nofile=20000:20000 --ulimit nproc=1000:1000"
"""Where the process that starts a container may not raise its own limits."""


@dataclasses.dataclass(frozen=True)
class Podman:
    """`words` begin its command line; `settings` are those of a platform that uses it."""

    words: tuple
    settings: dict

    def names(self):
        """Of all containers."""
        done = subprocess.run([*self.words, "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.split()

    def commands(self):
        """Command lines of all processes on this machine whose container is one of ours."""
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(line.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return [line for line in found if line.startswith("busybox httpd -f -p 127.0.0.1:")]


def busybox():
    """A busybox without libraries, else the test is skipped with a word why."""
    path = shutil.which("busybox")
    if path is None:
        pytest.skip("there is no busybox to make a small image of: apt install busybox-static")
    return path


def made(folder):
    """Imports the image into a podman whose storage is `folder`. Skips where podman cannot run."""
    if shutil.which("podman") is None:
        pytest.skip("there is no podman here: apt install podman runc")
    words = [
        "podman",
        "--root",
        str(folder / "root"),
        "--runroot",
        str(folder / "run"),
        "--storage-driver=vfs",
        "--cgroup-manager=cgroupfs",
    ]
    words += ["--runtime=runc"] if shutil.which("runc") else []
    archive = folder / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(busybox(), "bin/busybox")
        for applet in ("sh", "ls", "touch", "head", "true"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, text in (("serve", SERVE), ("www/ready", "yes"), ("www/cgi-bin/told", TOLD)):
            file = folder / "file"
            file.write_text(text)
            file.chmod(0o755)
            tar.add(file, name)
    entrypoint = ["--change", 'ENTRYPOINT ["/bin/sh", "/serve"]', "--change", "ENV PATH=/bin"]
    run = f"--network=host {LIMITS}"
    for line in (["import", *entrypoint, str(archive), IMAGE], ["run", "--rm", *run.split(), "--entrypoint", "/bin/true", IMAGE]):
        done = subprocess.run([*words, *line], capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip(f"podman cannot run containers here: {done.stderr.strip()[-300:]}")
    return Podman(tuple(words), {"container_runtime": " ".join(words), "container_args": run})
