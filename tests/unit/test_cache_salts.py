"""Salts of the prefix cache."""

import json

import pytest
from starlette.requests import Request

from deployments import cache_salts, usage


def account(key=b"", tenant=b""):
    return usage.Meter([]).open("/", [(b"x-moorage-key-id", key), (b"x-moorage-tenant", tenant)])


def test_salt_is_the_same_for_all_keys_of_a_tenant_and_another_for_everybody_else():
    salt = cache_salts.maker(b"secret")
    of_team = salt(account(b"key-1", b"team"))
    assert salt(account(b"key-2", b"team")) == of_team
    others = [salt(account(b"key-1", b"rival")), salt(account(b"team")), salt(account()), salt(None)]
    assert len({of_team, *others}) == 5


def test_salt_cannot_be_known_without_the_secret_and_is_one_that_vllm_takes():
    one, other = (cache_salts.maker(secret)(account(b"k", b"team")) for secret in (b"one", b"other"))
    assert one != other
    assert one.isalnum() and len(one) == 32


@pytest.fixture
def drop(monkeypatch):
    monkeypatch.setattr(Request, "json", Request.json)
    cache_salts.drop_those_of_clients()


@pytest.mark.parametrize("said", ['"cache_salt"', '"cache\\u005fsalt"'])
async def test_a_clients_own_salt_is_not_in_the_body_that_is_read(drop, said):
    body = b'{%s: ["not even a string"], "model": "m"}' % said.encode()

    async def receive():
        return {"type": "http.request", "body": body}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    assert await request.json() == {"model": "m"}
    assert await request.json() == {"model": "m"}


async def test_other_bodies_are_read_as_they_are(drop):
    async def receive():
        return {"type": "http.request", "body": json.dumps([{"cache_salt": 1}]).encode()}

    assert await Request({"type": "http", "method": "POST", "headers": []}, receive).json() == [{"cache_salt": 1}]
