"""An engine for the launcher's tests: imports nothing, and serves by doing what its first argument says."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

PRELOADED = []


def preload():
    if os.environ.get("VLLM_TEST_FAILS"):
        raise RuntimeError("no such engine")
    time.sleep(float(os.environ.get("VLLM_TEST_IMPORTS_S", "0")))
    PRELOADED.append(os.getpid())
    if os.environ.get("VLLM_TEST_THREAD"):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return ["a library that nobody has"]


def accelerator_touched():
    return bool(os.environ.get("VLLM_TEST_TOUCHED"))


def serve_in_fork(threads):
    action = sys.argv[1]
    if action == "tell":
        print("tells", PRELOADED[0] != os.getpid(), threads, os.getcwd(), sorted(os.environ), sys.argv[2:], flush=True)
    elif action == "exit":
        sys.exit(int(sys.argv[2]))
    elif action == "usage":
        sys.exit("usage: none")
    elif action == "raise":
        raise ValueError("as told")
    else:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        sockets = [os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.exists() and "socket" in os.readlink(fd)]
        print("serves", os.getpid(), child.pid, len(sockets), flush=True)
        time.sleep(600)
