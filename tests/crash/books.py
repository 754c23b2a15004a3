"""The judgement after the faults: all recomputed from rows and files, beside the product's own audit."""

import hashlib
import math
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import soundfile

from gateway.jobs.audit import verify_ledger
from tests.crash.load import Accepted, Customers, Register
from tests.crash.stack import Machine
from tests.factories import NANO_PER_SECOND

EMPTY: Final = {
    "a job that has not ended": "SELECT id::text FROM job WHERE completed_at IS NULL",
    "a hold that is still open": "SELECT reference::text FROM hold WHERE state = 'open'",
    "a hold that began before its job, or has none": """
        SELECT h.reference::text FROM hold h LEFT JOIN job j ON j.id = h.reference
         WHERE j.id IS NULL OR h.created_at < j.created_at - interval '1 second'
    """,
    "a job that was charged twice": """
        SELECT reference::text FROM transfer WHERE kind = 'settle' GROUP BY 1 HAVING count(*) > 1
    """,
    "a charge of a job that did not complete": """
        SELECT t.reference::text FROM transfer t JOIN job j ON j.id::text = t.reference::text
         WHERE t.kind = 'settle' AND j.status <> 'completed'
    """,
    "a transfer that does not sum to zero": """
        SELECT transfer_id::text FROM entry GROUP BY 1 HAVING sum(amount_nano) <> 0
    """,
    "a customer who owes": """
        SELECT id::text FROM account WHERE kind = 'customer' AND posted_nano - held_nano < 0
    """,
    "an open attempt of a job that has ended": """
        SELECT a.job_id::text || ' attempt ' || a.n || ' ' || a.state
          FROM attempt a JOIN job j ON j.id = a.job_id
         WHERE j.completed_at IS NOT NULL AND a.finished_at IS NULL
    """,
    "an outcome whose counter differs from its jobs": """
        SELECT outcome FROM (
            SELECT coalesce(error ->> 'code', status) AS outcome, count(*) AS jobs FROM job GROUP BY 1
        ) j FULL JOIN (SELECT outcome, sum(jobs) AS jobs FROM job_tally GROUP BY 1) t USING (outcome)
         WHERE j.jobs IS DISTINCT FROM t.jobs
    """,
}
"""What must not be found."""


async def judge(machine: Machine, customers: Customers, register: Register) -> list[str]:
    """Everything that is wrong; nothing, if every promise was kept."""
    wrong = register.faults + [line for line in machine.errors() if "job.crashed" in line]
    verified = machine.run("ledger", "verify", "--json")
    if verified.returncode != 0:
        wrong.append(f"ledger verify: {verified.returncode} {verified.stdout} {verified.stderr}")
    conn = await asyncpg.connect(machine.dsn())
    try:
        violations, _ = await verify_ledger(conn)
        wrong += [str(violation) for violation in violations]
        for what, query in EMPTY.items():
            wrong += [f"{what}: {row[0]}" for row in await conn.fetch(query)]
        rows = {
            row["id"]: row
            for row in await conn.fetch(
                "SELECT * FROM job WHERE organization_id = ANY($1)", list(customers.granted)
            )
        }
        accounts = {
            row["id"]: row
            for row in await conn.fetch("SELECT * FROM account WHERE id = ANY($1)", list(customers.granted))
        }
    finally:
        await conn.close()
    wrong += _judge_keys(rows, register)
    for known in register.accepted.values():
        wrong += _judge_end(rows.get(uuid.UUID(known.job_id)), known)
    spent = dict.fromkeys(customers.granted, 0)
    for row in rows.values():
        if row["status"] == "completed":
            problems, cost_nano = _judge_song(machine.home / "audio", row)
            wrong += problems
            spent[row["organization_id"]] += cost_nano
    for owner, granted in customers.granted.items():
        account = accounts[owner]
        if (account["posted_nano"], account["held_nano"]) != (granted - spent[owner], 0):
            wrong.append(f"{owner} has {dict(account)} after {granted} were granted and {spent[owner]} spent")
    return wrong


def _judge_keys(rows: dict[uuid.UUID, Any], register: Register) -> list[str]:
    """One job for each idempotency key, and no job that nobody was told of."""
    stored = [row["idempotency_key"] for row in rows.values()]
    told = set(register.accepted)
    wrong = [f"{key} is more than one job" for key in set(stored) if stored.count(key) > 1]
    wrong += [f"nobody was told of the job of {key}" for key in set(stored) - told]
    wrong += [f"the job of {key} is gone" for key in told - set(stored)]
    return wrong


def _judge_end(row: Any, known: Accepted) -> list[str]:
    """What the customer saw is what the row says; a cancellation that was confirmed is kept."""
    if row is None or known.final is None:
        return [f"{known.job_id} was accepted and did not end"]
    wrong = []
    public = "completed" if row["status"] == "completed" else "failed"
    if (known.final["status"], Decimal(known.final["cost"]["usd"])) != (
        public,
        Decimal(row["charged_nano"] or 0) / 10**9,
    ):
        wrong.append(f"{known.job_id} is shown as {known.final} and stored as {dict(row)}")
    if known.cancelled and row["status"] != "canceled":
        wrong.append(f"{known.job_id} was cancelled and is {row['status']}")
    if known.wallet.test and row["charged_nano"] is not None:
        wrong.append(f"{known.job_id} of a test key was charged")
    return wrong


def _judge_song(store: Path, row: Any) -> tuple[list[str], int]:
    """The files are the ones that were promised; what their length costs."""
    wrong = []
    cost_nano = 0
    for track in msgspec.json.decode(row["result"])["tracks"]:
        path = store / track["key"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != track["sha256"]:
            wrong.append(f"{row['id']}: {path} is missing or not what was promised")
            continue
        master = soundfile.info(str(store / track["master_key"]))
        milliseconds = math.ceil(master.frames * 1000 / master.samplerate)
        cost_nano += 0 if row["test"] else math.ceil(milliseconds * NANO_PER_SECOND / 1000)
    if cost_nano != (row["charged_nano"] or 0):
        wrong.append(f"{row['id']} was charged {row['charged_nano']}, its music costs {cost_nano}")
    return wrong, cost_nano
