"""An HTTP server on loopback, in the loop of the test, that answers as a script says, in good faith or not."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit


class Asked:
    """One request, as it came."""

    def __init__(self, method, target, headers, body):
        split = urlsplit(target)
        self.method, self.target, self.path, self.headers, self.body = method, target, split.path, headers, body
        self.params = dict(parse_qsl(split.query, keep_blank_values=True))

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        return [json.loads(line) for line in self.body.decode().splitlines()]


def reply(body, status=200, **headers):
    """A reply: (status, headers, body); what is no text or bytes is sent as JSON."""
    payload = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "application/json" if not isinstance(body, bytes | str) else "text/html; charset=utf-8"
    return status, {"Content-Type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}, payload


class Server:
    """`script(asked)` gives a reply, or a coroutine function that writes one to the connection; `asked` holds all."""

    def __init__(self, script):
        self.script, self.asked, self.url, self.port = script, [], "", 0

    async def handle(self, reader, writer):
        try:
            while (asked := await self.read(reader)) is not None:
                self.asked.append(asked)
                answer = self.script(asked)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if callable(answer):
                    await answer(writer)
                    return
                status, headers, payload = answer
                headers = {"Content-Length": str(len(payload)), **headers}
                head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + payload)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def read(self, reader):
        first = await reader.readline()
        if not first:
            return None
        method, target, _ = first.decode().split(" ", 2)
        headers = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(method, target, headers, body)


@asynccontextmanager
async def serving(script):
    """A server that is up while the block lasts."""
    server = Server(script)
    tasks = set()

    async def handle(reader, writer):
        tasks.add(asyncio.current_task())
        await server.handle(reader, writer)

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{server.port}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
