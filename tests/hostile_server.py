"""A server on loopback that answers as a script says, down to the bytes: late, half, wrong, or not at all."""

import asyncio
import json
from contextlib import asynccontextmanager


def reply(body, status=200, **headers):
    """The bytes of a whole answer; whatever is no bytes goes as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json"]
    named = {"Content-Length": len(payload)} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def found(queries, text="found"):
    """An answer of Forage's own protocol to these queries."""
    hits = [[{"id": query, "title": "T", "text": f"{text} {query}", "score": 1.0}] for query in queries]
    return {"results": hits}


class Hostile:
    """`script(number of the request, its body)` gives bytes, seconds to wait, None to hang up, or a list of these."""

    def __init__(self, script):
        self.script, self.asked, self.headers, self.url, self.connections = script, [], [], "", 0
        self._tasks = set()

    async def talk(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def _exchange(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.asked.append((lines[0].split()[1], body))
        self.headers.append(headers)
        steps = self.script(len(self.asked) - 1, body)
        for step in steps if isinstance(steps, list) else [steps]:
            if step is None:
                return False
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await asyncio.sleep(step)
        return True

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def hostile(script):
    """A `Hostile` that listens; `script` is a function, or a list of answers, the last for good."""
    answers = script if callable(script) else lambda number, _: script[min(number, len(script) - 1)]
    server = Hostile(answers)
    listening = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await server.stop()
