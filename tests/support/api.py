"""Calls of the management API over HTTP, in this process, and what its tests read of the answers."""

import re

from fastapi.routing import APIRoute
from support.management import Management

from cluster.api import schemas

ECHO = {"name": "demo-chat", "model": {"image": {"echo": {}}}}
HERE = "/manage/v2/endpoint/admin"
HUB_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


class Api(Management):
    """Calls with the platform key unless told otherwise."""

    def call(self, method, path, body=None, *, key=None, headers=None, **options):
        token = self.token if key is None else key
        given = ({"authorization": f"Bearer {token}"} if token else {}) | (headers or {})
        url = path if path.startswith("/manage") else HERE + path
        if body is not None:
            options["json"] = body
        return self._http.request(method, url, headers=given, **options)

    def create(self, name="demo-chat", **fields):
        answer = self.call("POST", "", {**ECHO, "name": name, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def app_routes(self):
        """The application's own routes."""
        return [route for route in self.app.routes if isinstance(route, APIRoute)]

    def routes(self):
        """(method, path) of every route that is described, and with values for its parameters."""
        document = self.call("GET", "/manage/openapi.json").json()
        values = {"namespace": "admin", "name": "demo-chat", "number": "1", "key": "x" * 12, "adapter": "style", "request": "0" * 36}
        values |= {"tenant": "admin", "user": "admin"}
        for path, methods in document["paths"].items():
            for method in methods:
                yield method.upper(), path, "/manage" + path.format(**values)


def refused(answer, status, code):
    """The answer's sentence, after checking that it is an error as promised."""
    told = answer.json()
    assert (answer.status_code, told["error_type"]) == (status, code), answer.text
    assert answer.headers["x-error-code"] == code, answer.headers
    assert answer.headers["x-error-message"], answer.headers
    assert answer.headers["x-request-id"], answer.headers
    schemas.Error.model_validate(told, extra="forbid")
    return told["error"]


def names(answer):
    return [item["name"] for item in answer.json()["items"]]
