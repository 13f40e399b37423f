"""A key's text in the path of a management call: the manager gets its id, and no log gets its secret."""

from __future__ import annotations

import json

from aiohttp import web
from support.edges import until

from cluster import keys


async def test_a_key_named_by_its_text_reaches_manager_and_access_log_by_its_id(worlds, engines):
    manager = await engines("manager", secret="")
    manager.secret = None
    world = await worlds(serve_port=manager.port)

    async def handle(request):
        return web.json_response({"path": request.path})

    manager._runner.server.request_handler = handle
    made = keys.mint(keys.ENDPOINT)
    for before, after in (("/keys/", ""), ("/keys/", "/rotate")):
        there = f"/manage/v2/endpoint/acme/chat-one{before}{{}}{after}"
        async with world.get(there.format(made.key)) as answer:
            assert (await answer.json())["path"] == there.format(made.id)
    log = world.settings.files.access_log
    await until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
    assert [json.loads(line)["path"].split("/")[7] for line in log.read_text().splitlines()] == [made.id, made.id]
    assert made.key not in log.read_text()
