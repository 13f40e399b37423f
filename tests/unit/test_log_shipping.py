"""The access log is handed on in chunks: whole lines, each once, whatever the manager, the gateway and the files do meanwhile."""

import pytest
from support.access_lines import lines

from gateway import access_log, control, log_shipping


@pytest.fixture
def file(tmp_path):
    return tmp_path / "access.log"


@pytest.fixture
def manager():
    return control.ControlTwin()


@pytest.fixture
def written(file):
    log = access_log.RotatingFile(file, limit=3000)
    return log.append


async def ship(shipper):
    while await shipper.step():
        pass


def shipper(file, manager, **options):
    return log_shipping.LogShipper(file, "edge", manager.request_lines, **options)


async def test_nothing_is_sent_while_there_is_nothing(file, manager):
    assert await shipper(file, manager).step() is False
    assert manager.segments == {}


async def test_what_is_appended_is_sent_once(file, manager, written):
    shipping = shipper(file, manager)
    written(lines("a", "b"))
    await ship(shipping)
    written(lines("c"))
    await ship(shipping)
    assert list(manager.segments.values()) == [lines("a", "b") + lines("c")]


async def test_only_whole_lines_are_sent(file, manager, written):
    written(lines("a", "b")[:-20])
    shipping = shipper(file, manager)
    await shipping.step()
    await shipping.step()
    assert list(manager.segments.values()) == [lines("a")]


async def test_a_chunk_is_bounded(file, manager, written):
    written(lines(*"abcd"))
    shipping = shipper(file, manager, chunk=len(lines("a")) + 10)
    await shipping.step()
    await shipping.step()
    assert list(manager.segments.values()) == [lines("a")]
    await ship(shipping)
    assert list(manager.segments.values()) == [lines(*"abcd")]


async def test_files_that_are_renamed_go_on_where_they_were(file, manager, written):
    shipping = shipper(file, manager)
    sent = b""
    for number in range(24):
        written(lines(f"id-{number}"))
        sent += lines(f"id-{number}")
        if number % 5 == 0:
            await ship(shipping)
    await ship(shipping)
    assert b"".join(manager.segments.values()) == sent
    assert len(manager.segments) > 2


async def test_a_new_gateway_sends_only_what_the_manager_has_not(file, manager, written):
    written(lines("a"))
    await ship(shipper(file, manager))
    written(lines("b"))
    await ship(shipper(file, manager))
    assert list(manager.segments.values()) == [lines("a") + lines("b")]


async def test_a_manager_that_comes_back_gets_what_the_files_still_have(file, manager, written):
    shipping = shipper(file, manager)
    manager.leave()
    for number in range(60):
        written(lines(f"id-{number}"))
        with pytest.raises(control.ControlLost):
            await shipping.step()
    manager.come_back()
    await ship(shipping)
    got = b"".join(manager.segments.values())
    assert lines("id-59") in got
    assert lines("id-0") not in got  # more than four files: the oldest are gone
    assert len(manager.segments) == access_log.KEPT_FILES + 1 or len(manager.segments) == access_log.KEPT_FILES


async def test_a_manager_that_lost_an_answer_does_not_get_lines_twice(file, manager, written):
    lost = []

    async def send(chunk):
        received = await manager.request_lines(chunk)
        if chunk.data and not lost:
            lost.append(chunk)
            raise TimeoutError
        return received

    shipping = log_shipping.LogShipper(file, "edge", send)
    written(lines("a"))
    await shipping.step()
    with pytest.raises(TimeoutError):
        await shipping.step()
    await ship(shipping)
    assert list(manager.segments.values()) == [lines("a")]
