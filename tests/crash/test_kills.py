"""Real processes are killed at random moments under load: nothing accepted is lost, nothing is paid twice."""

import os
import random
import secrets
import time

import pytest

from gateway.workers.process import NICENESS
from tests.crash.books import judge
from tests.crash.faults import Campaign, Plant, Victim, draw
from tests.crash.gauge import open_gauge
from tests.crash.load import Load, open_accounts, summary
from tests.crash.stack import Machine, tell

SEED = "CRASH_SEED"
DRAIN_SECONDS = 60.0
"""After the last fault everything that was accepted has ended."""


async def run_campaign(
    machine: Machine, victims: list[Victim], seed: int, *, clients: int, pause: float, doubles: float = 0.0
) -> None:
    """Load, kills, drain, judgement."""
    dice = random.Random(seed)
    machine.start()
    customers = await open_accounts(machine)
    plant = Plant(machine, dice=dice)
    ready = machine.await_ready()
    load = Load(machine.base_url, customers, seed=seed, clients=clients)
    async with open_gauge() as gauge, open_gauge(niceness=NICENESS) as background, plant.supervised():
        campaign = Campaign(plant, gauge, key=ready["test_key"], dice=dice)
        async with load.running():
            await campaign.strike(victims, longest_pause=pause, doubles=doubles)
        quiet = time.monotonic()
        late = await load.await_end(DRAIN_SECONDS * 3)
        drained, granted = time.monotonic() - quiet, background.granted(quiet)
        await load.read_again()
        wrong = await judge(machine, customers, load.register)
    await load.close()
    tell(campaign.report())
    tell(summary(load.register))
    tell(f"drained in {drained:.1f} s, {granted:.1f} s of a free core for rendering")
    assert [known.job_id for known in late] == []
    assert wrong == []
    assert campaign.late() == []
    assert granted <= DRAIN_SECONDS
    plant.second.stop()
    assert machine.up.stop() == 0


def new_seed() -> int:
    """Another one each time; the one of a run that failed stands in its output."""
    seed = int(os.environ.get(SEED) or secrets.randbits(32))
    tell(f"seed {seed}: repeat with {SEED}={seed}")
    return seed


@pytest.mark.slow
async def test_after_one_kill_of_each_kind_the_books_agree(machine: Machine) -> None:
    seed = new_seed()
    victims = draw(random.Random(seed), len(Victim))
    await run_campaign(machine, victims, seed, clients=8, pause=1.5)


@pytest.mark.slow
async def test_after_a_hundred_kills_the_books_agree(machine: Machine) -> None:
    seed = new_seed()
    await run_campaign(machine, draw(random.Random(seed), 100), seed, clients=8, pause=3.0, doubles=0.2)
