"""The console, which shows names, messages and answers that strangers chose: none of them becomes markup or code, nobody frames it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
import yarl
from support.api import Api, names

from gateway import slow_path

EVIL = "<img src=x onerror=alert(1)>\"'</script><script>alert(1)</script>"
SINKS = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|setTimeout\(\s*[\"'`]|javascript:")


async def pages(world) -> list:
    found = []
    for path in ("/console/", "/console/index.html", "/console/console.js", "/console/console.css"):
        async with world.get(path) as answer:
            assert answer.status == 200
            found.append((path, answer.headers.copy(), await answer.text()))
    return found


async def test_every_page_of_the_console_forbids_foreign_code_and_frames(world, record):
    """H13: on every file, and on what is not there."""
    missing = []
    for path, headers, _ in await pages(world):
        policy = headers.get("Content-Security-Policy", "")
        wanted = ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'")
        missing += [(path, word) for word in wanted if word not in policy]
        missing += [(path, word) for word in ("unsafe-inline", "unsafe-eval", "*", "http:") if word in policy]
        missing += [(path, name) for name in ("X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy") if name not in headers]
    record("H13 headers that the console lacks", len(missing), 0, unit="headers", note=str(missing))


async def test_the_console_has_no_inline_code_and_no_sink_for_markup(world, record):
    """H13: with such a policy inline code would not run; and what is shown goes in as text."""
    found = []
    for path, _, text in await pages(world):
        if path.endswith((".js", "/", ".html")):
            found += [(path, sink) for sink in SINKS.findall(text)]
        if not path.endswith((".js", ".css")):
            found += re.findall(r"\son\w+=|<script(?![^>]*src=)|<style|\sstyle=", text)
            found += [link for link in re.findall(r"(?:src|href)=\"([^\"]+)\"", text) if "//" in link]
    record("H13 places of the console that could run what it shows", len(found), 0, unit="places", note=str(found))


async def test_nothing_lets_another_site_use_a_browsers_key(world, record):
    """H13: no cookie is set or believed, and no answer allows another origin."""
    key = await world.key()
    open_to_others = []
    for path in ("/console/", "/v1/models", "/health", "/manage/v2/namespaces"):
        for method in ("GET", "OPTIONS"):
            headers = {
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": "POST",
                "Cookie": f"key={key}; authorization={key}",
            }
            async with world.client.request(method, world.url + path, headers=headers) as answer:
                if {"Set-Cookie", "Access-Control-Allow-Origin"} & set(answer.headers):
                    open_to_others.append((method, path))
                assert path != "/v1/models" or answer.status in (401, 404)
    record("H13 answers that let other sites in", len(open_to_others), 0, unit="answers", note=str(open_to_others))


@pytest.mark.parametrize(
    "path", ["/console/../slow_path.py", "/console/%2e%2e/slow_path.py", "/console/..%2fslow_path.py", "/console//etc/passwd"]
)
async def test_the_console_serves_its_own_folder_only(world, path):
    """H13."""
    async with world.client.get(yarl.URL(world.url + path, encoded=True)) as answer:
        assert answer.status in (400, 404)
        assert "import" not in await answer.text()


async def test_many_ranges_of_a_file_cost_nothing(world, record):
    """H13: one request, 3,000 overlapping ranges."""
    header = "bytes=" + ",".join(f"{number}-{number + 2}" for number in range(1200))
    began = time.monotonic()
    async with world.get("/console/console.js", headers={"Range": header}) as answer:
        assert answer.status == 200
        assert len(await answer.read()) == (slow_path.CONSOLE / "console.js").stat().st_size
    record("H13 time for 1,200 ranges", time.monotonic() - began, 1, unit="s")


def test_the_description_page_is_as_closed_and_names_stay_text(tmp_path, record):
    """H13: what an endpoint is called and how it is described is JSON that no browser takes for a page."""
    api = Api(tmp_path)
    page = api.call("GET", "/manage/docs", key="")
    assert "script-src" not in page.headers["content-security-policy"] and "default-src 'none'" in page.headers["content-security-policy"]
    assert api.call("POST", "", {"name": EVIL, "model": {"image": {"echo": {}}}}).status_code == 400
    made = api.call("POST", "", {"name": "demo-chat", "description": EVIL, "tags": [EVIL], "model": {"image": {"echo": {}}}})
    shown = [made, api.call("GET", ""), api.call("GET", f"/{EVIL.replace('/', '')}"), api.call("GET", "/manage/" + "<script>")]
    wrong = [answer.headers["content-type"] for answer in shown if not answer.headers["content-type"].startswith("application/json")]
    assert names(shown[1]) == ["demo-chat"]
    record("H13 answers that a browser could take for a page", len(wrong), 0, unit="answers", note=str(wrong))


DOM = """
class Box {
  constructor(tag) { this.tag = tag; this.children = []; this.attributes = {}; this._text = ""; }
  set textContent(text) { this._text = String(text); this.children = []; }
  get textContent() { return this._text; }
  set innerHTML(text) { throw new Error("markup: " + text); }
  append(...nodes) { this.children.push(...nodes); }
  replaceChildren(...nodes) { this.children = nodes; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
}
const boxes = {}, made = [];
globalThis.document = {
  getElementById: (id) => boxes[id] ??= new Box(id),
  createElement: (tag) => { const box = new Box(tag); made.push(tag); return box; },
  querySelector: (tag) => boxes[tag] ??= new Box(tag),
};
globalThis.sessionStorage = { getItem: () => "key", setItem() {}, removeItem() {} };
globalThis.setInterval = () => 0;
globalThis.location = { reload() {} };
const answers = JSON.parse(process.env.ANSWERS);
globalThis.fetch = async (path) => ({ ok: true, status: 200, json: async () => answers[path] });
await import(process.env.CONSOLE);
await new Promise((done) => setTimeout(done, 50));
boxes.endpoints.children[0].onclick();
await new Promise((done) => setTimeout(done, 50));
const text = (box) => [box.textContent, ...box.children.map(text)].join("|");
const shown = text(boxes.endpoints) + text(boxes.events);
console.log(JSON.stringify({ made: [...new Set(made)], shown, problem: boxes.problem?.textContent ?? "" }));
"""


def test_what_strangers_chose_is_shown_as_text_by_the_consoles_own_code(tmp_path, record):
    """H13: console.js with a stand-in for the page, on answers that are markup in every field."""
    node = next((path for path in ("/usr/bin/node", "/usr/local/bin/node") if Path(path).exists()), None)
    if node is None:
        pytest.skip("needs node")
    status = {"state": EVIL, "readyReplica": EVIL, "targetReplica": 1, "reason": EVIL, "message": EVIL, "url": EVIL}
    row = {
        "name": EVIL,
        "status": status,
        "model": {"repository": EVIL, "image": {}},
        "compute": {"instanceType": EVIL, "instanceSize": EVIL},
    }
    event = {"at": "2026-01-01T00:00:00Z", "kind": EVIL, "revision": EVIL, "message": EVIL}
    answers = {
        "/manage/api/whoami-v2": {"name": "admin"},
        "/manage/v2/endpoint/admin": {"items": [row]},
        f"/manage/v2/endpoint/admin/{EVIL}/events": {"items": [event]},
    }
    program = tmp_path / "page.mjs"
    program.write_text(DOM)
    script = tmp_path / "console.mjs"
    script.write_text((slow_path.CONSOLE / "console.js").read_text())
    environment = {"ANSWERS": json.dumps(answers), "CONSOLE": str(script)}
    done = subprocess.run([node, str(program)], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["shown"].count(EVIL) >= 5 and not told["problem"], told
    record(
        "H13 elements that strangers' text made",
        len(set(told["made"]) - {"tr", "td", "button"}),
        0,
        unit="elements",
        note=str(told["made"]),
    )
