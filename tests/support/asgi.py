"""ASGI applications called in memory: an engine that says what it is told to, and a client."""

import asyncio
import json


class Engine:
    """Answers every request with the messages given, and keeps what it was asked."""

    def __init__(self, status=200, body=b"{}", parts=None):
        self.status, self.parts = status, parts or [body]
        self.asked = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.asked.append((scope, body))
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"retry-after", b"7")]})
        for number, part in enumerate(self.parts):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(self.parts) - 1})


async def post(application, path, body):
    """What `application` sends for a POST of `body`, whose client stays until the answer is whole."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    messages = [{"type": "http.request", "body": content[:3], "more_body": True}, {"type": "http.request", "body": content[3:]}]
    sent = []
    answered = asyncio.Event()

    async def receive():
        if messages:
            return messages.pop(0)
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"1"), (b"x-request-id", b"r")]}
    await application(scope, receive, send)
    return sent


def whole(sent):
    """The body of an answer."""
    return b"".join(message.get("body", b"") for message in sent)
