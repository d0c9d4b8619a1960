"""Servers that fail, come back, and take turns."""

import asyncio

import pytest
from hostile_server import hostile, reply

from forage.clients.breaker import Breaker
from forage.clients.pool import Pool
from forage.errors import ServiceError

GOOD = reply({"ok": True})


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.now, self.naps = 100.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.naps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def pool(*servers, time=None, **options):
    told = {
        "headers": {},
        "attempt_s": 5.0,
        "deadline_s": 1000.0,
        "retries": 3,
        "connections": 8,
        "hedge": 0.0,
        "breaker_failures": 100,
        "breaker_pause_s": 5.0,
    } | options
    urls = [server if isinstance(server, str) else server.url for server in servers]
    return Pool(urls, **told, **({"sleep": time.sleep, "clock": time} if time else {}))


def post(script, times=1, **options):
    """(answers or errors, server) of requests one after another, to a server with a script."""

    async def asked():
        async with hostile(script) as server:
            one = pool(server, **options)
            return [await outcome(one) for _ in range(times)], server

    return asyncio.run(asked())


async def outcome(one):
    try:
        return await one.post("/x", b"{}")
    except ServiceError as error:
        return error


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_growing_waits(status):
    time = Time()
    (answer,), server = post([reply(b"", status)] * 3 + [GOOD], time=time)
    assert (answer.status, len(server.asked)) == (200, 4)
    for nap, longest in zip(time.naps, [0.1, 0.2, 0.4], strict=True):
        assert longest / 2 <= nap <= longest


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_will_not_pass_is_the_answer(status):
    (answer,), server = post([reply(b"no", status)])
    assert (answer.status, answer.body, answer.server, len(server.asked)) == (status, b"no", server.url, 1)


def test_a_wait_that_the_server_names_is_kept():
    time = Time()
    post([reply(b"", 429, Retry_After="7"), GOOD], time=time)
    assert time.naps == [7]


def test_a_wait_beyond_the_deadline_ends_it():
    time = Time()
    (error,), server = post([reply(b"quota", 429, Retry_After="3600")], time=time)
    assert (time.naps, len(server.asked)) == ([], 1)
    assert f"{server.url}: asked once, no answer: {server.url}: status 429: quota" in str(error)


def test_a_broken_connection_is_tried_again():
    (answer,), server = post([None, [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", None], GOOD], time=Time())
    assert (answer.status, len(server.asked)) == (200, 3)


def test_the_last_cause_is_told():
    (error,), server = post([None, None, None, reply(b"still\nloading", 503)], time=Time())
    assert f"asked 4 times, no answer: {server.url}: status 503: still loading" in str(error)


def test_servers_take_turns_and_one_that_fails_is_replaced_at_once():
    async def asked():
        time = Time()
        async with hostile([GOOD]) as first, hostile([reply(b"", 503)]) as second, hostile([GOOD]) as third:
            one = pool(first, second, third, time=time, breaker_failures=2)
            answers = [await one.post("/x", b"{}") for _ in range(12)]
            return answers, time.naps, [len(server.asked) for server in (first, second, third)]

    answers, naps, counts = asyncio.run(asked())
    assert {answer.status for answer in answers} == {200}
    assert not any(naps)
    assert counts[1] == 2  # then it is left alone
    assert abs(counts[0] - counts[2]) <= 2


def test_a_server_that_fails_is_left_alone_until_a_trial_succeeds():
    time = Time()
    script = [reply(b"", 500 + 3)] * 3 + [GOOD]
    answers, server = post(script, times=3, time=time, retries=0, breaker_failures=3, breaker_pause_s=5.0)
    assert [str(one)[-19:] for one in answers] == ["status 503: (empty)"] * 3
    (error, good), _ = post(script, times=2, time=Time(), retries=3, breaker_failures=3, breaker_pause_s=5.0)
    assert error.status == good.status == 200
    assert len(server.asked) == 3


def test_a_server_that_is_busy_is_not_left_alone():
    (answer,), server = post([reply(b"", 429, Retry_After="1")] * 3 + [GOOD], time=Time(), breaker_failures=1)
    assert (answer.status, len(server.asked)) == (200, 4)


def test_the_first_requests_of_a_loop_may_come_together():
    async def asked():
        async with hostile([GOOD]) as server:
            one = pool(server)
            return await asyncio.gather(*(one.post("/x", b"{}") for _ in range(5)))

    assert [answer.status for answer in asyncio.run(asked())] == [200] * 5


def test_the_pause_of_a_breaker_is_waited_for_and_no_try():
    time = Time()
    (answer,), server = post(
        [reply(b"", 503)] * 2 + [GOOD], time=time, retries=2, breaker_failures=1, breaker_pause_s=5.0
    )
    assert (answer.status, len(server.asked)) == (200, 3)
    assert sum(time.naps) == pytest.approx(10)


def test_a_breaker_lets_one_through_on_trial():
    now = [0.0]
    breaker = Breaker(2, 5.0, clock=lambda: now[0])
    for _ in range(2):
        assert breaker.wait_s == 0
        breaker.enter()
        breaker.failed()
    assert breaker.wait_s == 5
    now[0] = 5.0
    assert breaker.wait_s == 0
    breaker.enter()
    assert 0 < breaker.wait_s < 1  # others wait for the trial's end
    breaker.left()
    assert breaker.wait_s == 0  # nobody knows how it ended: another trial
    breaker.enter()
    breaker.failed()
    assert breaker.wait_s == 5
    now[0] = 10.0
    breaker.enter()
    breaker.succeeded()
    assert breaker.wait_s == 0
    breaker.enter()
    breaker.enter()
    assert breaker.wait_s == 0


def test_a_second_server_is_asked_where_the_first_takes_long():
    async def asked():
        slow_from = 30
        async with (
            hostile(lambda number, _: [GOOD] if number < slow_from else [5.0, GOOD]) as first,
            hostile([GOOD]) as second,
        ):
            one = pool(first, second, hedge=90)
            for _ in range(2 * slow_from):
                await one.post("/x", b"{}")
            loop = asyncio.get_running_loop()
            started = loop.time()
            answers = [await one.post("/x", b"{}") for _ in range(4)]
            return answers, loop.time() - started, second.url, len(second.asked)

    answers, seconds, second, count = asyncio.run(asked())
    assert {answer.server for answer in answers} == {second}
    assert seconds < 2
    assert count >= 34


def test_no_more_requests_at_a_time_than_connections():
    async def asked():
        async with hostile([[0.01, GOOD]]) as server:
            one = pool(server, connections=3)
            await asyncio.gather(*(one.post("/x", b"{}") for _ in range(20)))
            return server.connections

    assert asyncio.run(asked()) == 3


def test_requests_that_are_cancelled_leave_nothing_behind():
    async def asked():
        async with hostile(lambda number, _: [5.0, GOOD] if number < 8 else GOOD) as server:
            one = pool(server, connections=8)
            tasks = [asyncio.create_task(one.post("/x", b"{}")) for _ in range(8)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return (await one.post("/x", b"{}")).status

    assert asyncio.run(asked()) == 200
