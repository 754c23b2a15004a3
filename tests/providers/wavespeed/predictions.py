"""Predictions and the accounts that pay for them, in memory."""

import asyncio
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tests.providers.wavespeed.faults import Outputs, TaskFails
from tests.providers.wavespeed.models import Asked

START_BALANCE_NANO = 100 * 10**9
KEPT = timedelta(days=7)


@dataclass(eq=False)
class Prediction:
    """One task. `status` and what belongs to it changes as time passes; all else is as submitted."""

    asked: Asked
    base_url: str
    outcome: TaskFails | None
    outputs: Outputs | None
    seed: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: str = "created"
    code: int = 0
    error: str = ""
    execution_ms: int = 0
    deleted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None

    @property
    def model(self) -> str:
        return self.asked.model

    @property
    def input(self) -> dict[str, Any]:
        return self.asked.input

    @property
    def seconds(self) -> float:
        return self.asked.seconds

    @property
    def cost_nano(self) -> int:
        return self.asked.cost_nano

    @property
    def output_url(self) -> str:
        kind = self.outputs.kind if self.outputs else ""
        if kind == "private":
            return "http://169.254.169.254/latest/meta-data/"
        if kind == "local":
            return "file:///etc/passwd"
        return f"{self.base_url}/outputs/{self.id}.{kind if kind in ('wav', 'flac') else 'mp3'}"

    def shown(self, output: str | None = None, *, as_completed: bool = False) -> dict[str, Any]:
        """As it goes over the wire; `output` in place of the URL of a completed one."""
        done = as_completed or self.status == "completed"
        empty = self.outputs is not None and self.outputs.kind == "empty"
        outputs = [output or self.output_url] if done and not empty else []
        return {
            "id": self.id,
            "model": self.model,
            "input": self.input,
            "outputs": outputs,
            "urls": {"get": f"{self.base_url}/api/v3/predictions/{self.id}/result"},
            "has_nsfw_contents": [False for _ in outputs],
            "status": "completed" if done else self.status,
            "created_at": moment(self.created_at),
            "error": self.error,
            "code": self.code,
            "executionTime": self.execution_ms,
            "timings": {"inference": self.execution_ms},
        }


class Account:
    """What belongs to one API key."""

    def __init__(self, key: str, balance_nano: int) -> None:
        self.key = key
        self.balance_nano = balance_nano
        self.webhook_secret = f"whsec_{secrets.token_hex(24)}"
        self.predictions: dict[str, Prediction] = {}
        self.on_end: Callable[[Account, Prediction], None] = lambda _account, _prediction: None
        self.running = 0
        self._promised_nano = 0
        self._seeds = count(1)

    def can_pay(self, cost_nano: int) -> bool:
        """What runs is promised: it is charged when it completes."""
        return self.balance_nano >= cost_nano + self._promised_nano

    def accept(
        self, asked: Asked, base_url: str, *, outcome: TaskFails | None, outputs: Outputs | None
    ) -> Prediction:
        seed = next(self._seeds) if asked.seed == -1 else asked.seed
        made = Prediction(asked, base_url, outcome, outputs, seed)
        self.predictions[made.id] = made
        self.running += 1
        self._promised_nano += asked.cost_nano
        return made

    def start(self, prediction: Prediction, seconds: float | None) -> None:
        """It runs for so long, or until somebody ends it."""
        if prediction.status == "created":
            prediction.status = "processing"
        if seconds is not None and not prediction.ended.is_set():
            loop = asyncio.get_running_loop()
            prediction.timer = loop.call_later(seconds, self.end, prediction)

    def end(self, prediction: Prediction) -> None:
        """Completed and charged, or ended as its fault says and free of charge."""
        if prediction.ended.is_set():
            return
        age = datetime.now(UTC) - prediction.created_at
        prediction.execution_ms = max(1, round(age.total_seconds() * 1000))
        if prediction.outcome is None:
            prediction.status = "completed"
            self.balance_nano -= prediction.cost_nano
        else:
            prediction.status = prediction.outcome.status
            prediction.code = prediction.outcome.code
            prediction.error = prediction.outcome.error
        self._stop(prediction)
        self.on_end(self, prediction)

    def find(self, prediction_id: str) -> Prediction | None:
        found = self.predictions.get(prediction_id)
        return None if found is None or found.deleted else found

    def delete(self, ids: list[str]) -> int:
        """Those that are known; one that runs stops and is not charged."""
        found = [one for one in map(self.find, dict.fromkeys(ids)) if one]
        for one in found:
            one.deleted = True
            self._stop(one)
        return len(found)

    def newest(self) -> Iterator[Prediction]:
        """What the list knows, newest first."""
        since = datetime.now(UTC) - KEPT
        ordered = list(self.predictions.values())[::-1]
        ordered.sort(key=lambda one: one.created_at, reverse=True)
        return (one for one in ordered if not one.deleted and one.created_at >= since)

    def _stop(self, prediction: Prediction) -> None:
        if not prediction.ended.is_set():
            self.running -= 1
            self._promised_nano -= prediction.cost_nano
        if prediction.timer:
            prediction.timer.cancel()
        prediction.ended.set()


def moment(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
