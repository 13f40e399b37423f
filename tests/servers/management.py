"""The management API on a SQLite file, as a process that can be killed: `python management.py HOME PORT`. Prints a new platform key."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.management import Management, UnderManage

from cluster.store import open_store

if __name__ == "__main__":
    home, port = Path(sys.argv[1]), int(sys.argv[2])
    store = open_store(f"sqlite:///{home}/moorage.db")
    store.migrate()
    served = Management(home, store=store)
    print(served.token, flush=True)
    uvicorn.run(UnderManage(served.app), host="127.0.0.1", port=port, access_log=False, log_level="error")
