"""Load on `forage serve` while everything goes wrong: is every request answered, or refused with a status?

Clients ask a small index for some minutes, over loopback. Most ask queries whose right answers are known; others send
bodies that are broken, too large or strange, drip their bytes, never read, or hang up. Meanwhile workers are killed,
and for the last third the index folder is gone. Only what a killed worker held may end without a status: connections
lost are counted, and may not be more than clients for each worker that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from common import machine, show
from soak_index import NUMBERS, WORDS

SERVED = Path(__file__).resolve().parent / "soak_index.py"
ODD = [
    "",
    " ",
    "\u0000",
    "\ufffe\uffff",
    "🦊" * 500,
    "a\u0301\u202e",
    "\u2028\u2029",
    "ﷺ" * 1000,
    "%00<script>",
    "' OR 1=1",
]


class Service:
    """`forage serve` in a process of its own, with what it logs."""

    def __init__(self, folder: Path, workers: int) -> None:
        words = [sys.executable, str(SERVED), str(folder), str(workers)]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        self.events: list[dict[str, Any]] = []
        self.host, self.port = "", 0
        while not self.port:
            self.take(self.process.stderr.readline())

    def take(self, line: str) -> None:
        if not line:
            raise SystemExit("the service ended before it listened")
        if line.startswith("{"):
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "listening":
                self.host, port = re.fullmatch(r"http://(.*):(\d+)", event["url"]).groups()  # type: ignore[union-attr]
                self.port = int(port)

    async def follow(self) -> None:
        """Read what it logs from now on."""
        assert self.process.stderr
        while line := await asyncio.to_thread(self.process.stderr.readline):
            self.take(line)

    def workers(self) -> list[int]:
        """The process ids of the workers that were started and did not die."""
        died = {event["child"] for event in self.events if event["event"] == "worker_died"}
        return [
            event["child"] for event in self.events if event["event"] == "worker_started" and event["child"] not in died
        ]

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/metrics", timeout=10) as reply:
            lines = [line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def memory_mb(self) -> float:
        """Resident MB of all workers, what they share counted in each."""
        sizes = [re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) for pid in self.workers()]
        return round(sum(int(found[1]) for found in sizes if found) / 1024, 1)


class Load:
    """Clients of all kinds, and what came of their requests."""

    def __init__(self, service: Service, seconds: float, seed: int) -> None:
        self.service, self.ends = service, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.worst_s = 0.0
        self._random = random.Random(seed)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(asyncio.open_connection(self.service.host, self.service.port, limit=2**26), 30)

    async def exchange(self, streams: Any, path: str, body: bytes) -> tuple[int, bytes]:
        """One request over an open connection."""
        reader, writer = streams
        head = f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return await asyncio.wait_for(read_reply(reader), 90)

    async def asker(self) -> None:
        """Asks queries one after another over one connection, and knows the right answers."""
        streams = None
        while time.monotonic() < self.ends:
            queries = [self.query() for _ in range(self._random.choice([1, 1, 1, 4, 64]))]
            started = time.monotonic()
            try:
                streams = streams or await self.open()
                body = json.dumps({"queries": queries, "k": 3}).encode()
                status, answer = await self.exchange(streams, "/v1/search", body)
            except (OSError, asyncio.IncompleteReadError):
                self.counts["connection lost"] += 1
                streams = close(streams)
                continue
            except TimeoutError:
                self.counts["HANG"] += 1
                streams = close(streams)
                continue
            self.worst_s = max(self.worst_s, time.monotonic() - started)
            self.counts[f"asked: {status}"] += 1
            self.judge(queries, status, answer)
        close(streams)

    def query(self) -> str:
        if self._random.random() < 0.1:
            return self._random.choice(ODD)
        return f"{self._random.choice(WORDS)} {self._random.randrange(NUMBERS)}"

    def judge(self, queries: list[str], status: int, answer: bytes) -> None:
        """Whether an answer is right: every passage holds its query's words; every refusal says why."""
        told = json.loads(answer)
        if status != 200:
            if not told["error"]["message"]:
                self.wrong.append(f"status {status} without a reason")
            return
        if len(told["results"]) != len(queries) or "errors" in told:
            self.wrong.append(f"{len(told['results'])} results for {len(queries)} queries: {told.get('errors')}")
        for query, hits in zip(queries, told["results"], strict=False):
            known = re.fullmatch(r"(\w+) (\d+)", query)
            if known and not (hits and f"the {known[1]} number {known[2]} " in hits[0]["text"]):
                self.wrong.append(f"{query!r}: {hits!r:.200}")

    async def nuisance(self) -> None:
        """Sends what nobody should."""
        while time.monotonic() < self.ends:
            name, body = self.strange()
            path = self._random.choice(["/v1/search", "/retrieve"])
            streams = None
            try:
                streams = await self.open()
                status, answer = await self.exchange(streams, path, body)
                self.counts[f"{name}: {status}"] += 1
                if (status >= 500 and status != 503) or not json.loads(answer):
                    self.wrong.append(f"{name}: {status} {answer!r:.200}")
            except (OSError, asyncio.IncompleteReadError):
                self.counts["connection lost"] += 1
            except TimeoutError:
                self.counts["HANG"] += 1
            finally:
                close(streams)
            await asyncio.sleep(0.05)

    def strange(self) -> tuple[str, bytes]:
        kinds = {
            "malformed": self._random.choice(
                [b"", b"{", b"[]", b"null", b'{"queries":3}', b'{"queries":["\\ud800"]}', b"\xff"]
            ),
            "1 MB query": json.dumps({"queries": ["x" * 2**20]}).encode(),
            "20 MB body": b"x" * (20 * 2**20),
            "odd unicode": json.dumps({"queries": ODD}, ensure_ascii=False).encode(),
            "nested": b'{"queries":' + b"[" * 50_000,
        }
        name = self._random.choice([*kinds, "malformed", "malformed", "odd unicode", "nested"])
        return name, kinds[name]

    async def slow(self) -> None:
        """Drips a request, or hangs up in its middle, or asks for much and does not read."""
        body = json.dumps({"queries": ["river 1"] * 500, "k": 100}).encode()
        head = f"POST /v1/search HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while time.monotonic() < self.ends:
            kind = self._random.choice(["drip", "hang up", "no reader"])
            streams = None
            try:
                streams = await self.open()
                writer = streams[1]
                if kind == "drip":
                    for byte in head[:40]:
                        if writer.transport.is_closing():
                            break
                        writer.write(bytes([byte]))
                        await asyncio.sleep(min(0.2, max(0.0, self.ends - time.monotonic())))
                else:
                    writer.write((head + body)[: len(head) + (len(body) if kind == "no reader" else 20)])
                    await asyncio.sleep(2 if kind == "no reader" else 0.05)
                self.counts[f"slow: {kind}"] += 1
            except OSError:
                self.counts[f"slow: {kind}, cut off"] += 1
            finally:
                close(streams)


def close(streams: Any) -> None:
    if streams:
        streams[1].transport.abort()


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body)."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])  # type: ignore[index]
    return int(head.split()[1]), await reader.readexactly(length)


async def harm(service: Service, load: Load, folder: Path, seconds: float) -> None:
    """Kill a worker every so often; take the index away for the last third."""
    pause, gone = min(30.0, seconds / 6), load.ends - seconds / 3
    while time.monotonic() < load.ends - 2:
        await asyncio.sleep(pause)
        if time.monotonic() > gone and folder.exists():
            shutil.move(folder, folder.with_name("gone"))
            load.counts["index removed"] += 1
        if time.monotonic() < load.ends - 2 and (alive := service.workers()):
            os.kill(load._random.choice(alive), signal.SIGKILL)
            load.counts["workers killed"] += 1


async def soak(service: Service, folder: Path, args: argparse.Namespace) -> Load:
    seconds = args.minutes * 60
    load = Load(service, seconds, args.seed)
    log = asyncio.create_task(service.follow())
    while not any(event["event"] == "ready" for event in service.events):
        await asyncio.sleep(0.1)
    slow, strange = max(1, args.clients // 8), max(1, args.clients // 8)
    clients = [load.asker() for _ in range(args.clients - slow - strange)]
    clients += [load.slow() for _ in range(slow)] + [load.nuisance() for _ in range(strange)]
    await asyncio.gather(harm(service, load, folder, seconds), *clients)
    shutil.move(folder.with_name("gone"), folder)
    await asyncio.sleep(25)  # what was left half-sent is given up by now, and the index found again
    load.counts["in flight at the end"] = int(service.metrics()["forage_in_flight"]) - 1
    load.counts["queued at the end"] = int(service.metrics()["forage_queue"])
    load.counts["workers ready at the end"] = int(service.metrics()["forage_ready"])
    load.memory_mb = service.memory_mb()  # type: ignore[attr-defined]
    service.process.terminate()
    service.process.wait(30)
    await log
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forage-soak-") as place:
        folder = Path(place) / "index"
        subprocess.run([sys.executable, str(SERVED), str(folder)], check=True)
        service = Service(folder, args.workers)
        try:
            load = asyncio.run(soak(service, folder, args))
        finally:
            service.process.kill()
    bad = load.counts["HANG"] + len(load.wrong) + load.counts["in flight at the end"] + load.counts["queued at the end"]
    bad += max(0, load.counts["connection lost"] - args.clients * load.counts["workers killed"])
    events = Counter(event["event"] for event in service.events)
    result = {
        "passed": not bad and load.counts["workers ready at the end"] == args.workers,
        "requests": dict(sorted(load.counts.items())),
        "wrong": load.wrong[:10],
        "slowest_answer_s": round(load.worst_s, 2),
        "memory_mb_of_workers": load.memory_mb,  # type: ignore[attr-defined]
        "events": dict(events),
        "stopped_with": service.process.returncode,
        "machine": machine(1),
    }
    show(result, as_json=args.json)
    raise SystemExit(0 if result["passed"] else 1)


if __name__ == "__main__":
    main()
