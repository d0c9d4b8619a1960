"""So many a second."""

import asyncio

from forage.clients.pace import Pace


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self):
        self.now, self.naps = 100.0, []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.naps.append(seconds)


def test_moments_are_apart_and_a_pause_is_not_made_up_for():
    clock = Clock()
    pace = Pace(2, clock.sleep, clock)

    async def main():
        for _ in range(3):
            await pace.wait()
        clock.now += 60
        for _ in range(3):
            await pace.wait()

    asyncio.run(main())
    assert clock.naps == [0.5, 1.0, 0.5, 1.0]


def test_without_a_limit_nobody_waits():
    clock = Clock()
    pace = Pace(0, clock.sleep, clock)
    asyncio.run(pace.wait())
    asyncio.run(pace.wait())
    assert not clock.naps
