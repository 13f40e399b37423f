"""Lines as HAProxy writes them into the access log."""

import json


def line(identity="id-1", at=1000.0, **changes):
    """One whole line. `at` in Unix seconds; `ms` is merged."""
    ms = {"request": 0, "queue": 0, "connect": 0, "response": 1, "active": 5} | changes.pop("ms", {})
    fields = {
        "time": int(at * 1000),
        "id": identity,
        "client": "10.1.2.3",
        "method": "POST",
        "path": "/endpoints/acme/chat/v1/chat/completions",
        "endpoint": "acme/chat",
        "key": "k1",
        "tenant": "acme",
        "status": 200,
        "code": "-",
        "bytes_in": 300,
        "bytes_out": 250,
        "ms": ms,
        "end": "--",
        "server": "r1",
        "to": "r1",
        "tries": "0",
        "slow": "-",
        **changes,
    }
    return json.dumps(fields, separators=(",", ":")).replace("/", "\\/").encode() + b"\n"


def lines(*ids, start=1000.0, **changes):
    """A line for each id, a second apart."""
    return b"".join(line(identity, start + number, **changes) for number, identity in enumerate(ids))
