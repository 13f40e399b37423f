"""The slow path's server ends its connections with itself."""

import asyncio

from gateway.slow_path_server import SlowPathServer


async def test_stopping_breaks_off_a_request_whose_body_nobody_reads(tmp_path):
    asked, path = asyncio.Event(), str(tmp_path / "slow")

    async def holds(scope, receive, send):
        asked.set()
        await asyncio.Event().wait()

    server = SlowPathServer(holds, path)
    await server.start()
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST / HTTP/1.1\r\nHost: edge\r\nContent-Length: 10000000\r\n\r\n" + bytes(1_000_000))
        await asked.wait()
        await server.stop()
        try:
            rest = await reader.read()
        except ConnectionError:
            rest = b""
        writer.close()
    assert rest == b""
