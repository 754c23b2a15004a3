"""What the vendor keeps: accounts with their money, tasks, stored media, and what came in and went out."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.providers.runware.faults import Fault, Hook, Outputs, TaskFails

Json = dict[str, Any]
NANO = 1_000_000_000
STARTING_BALANCE_NANO = 100 * NANO


@dataclass(slots=True)
class Request:
    """A request or a frame as it came. `tasks` is empty when its body is no array of objects."""

    transport: Literal["http", "websocket"]
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    tasks: list[Json] = field(default_factory=list)
    fault: Fault | None = None

    @property
    def task_types(self) -> list[Any]:
        return [task.get("taskType") for task in self.tasks]


@dataclass(slots=True)
class Sent:
    """A webhook, or an upload of a result, as it was sent; the status is None when none came."""

    url: str
    body: bytes
    forged: bool = False
    status: int | None = None


@dataclass(slots=True)
class Media:
    uuid: str
    content: bytes


@dataclass(slots=True, eq=False)
class Task:
    """An `audioInference`. `accepted` counts the tasks made under its UUID, `offered` the submits of it."""

    uuid: str
    request: Json
    seconds: float
    cost_nano: int
    processing_seconds: float
    failure: TaskFails | None = None
    outputs: Outputs | None = None
    hook: Hook | None = None
    state: Literal["processing", "success", "error"] = "processing"
    accepted: int = 1
    offered: int = 1
    items: list[Json] = field(default_factory=list)
    error: Json | None = None
    forgotten: bool = False
    closing: bool = False
    since: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def progress(self) -> int:
        """Percent; 99 at most while the task runs."""
        share = (time.monotonic() - self.since) / max(self.processing_seconds, 1e-3)
        return min(99, int(share * 100))


@dataclass(slots=True)
class Account:
    """What belongs to one API key."""

    key: str
    balance_nano: int = STARTING_BALANCE_NANO
    tasks: dict[str, Task] = field(default_factory=dict)
    media: dict[str, Media] = field(default_factory=dict)
    organization: str = field(default_factory=lambda: str(uuid.uuid4()))
    promised_nano: int = 0
    """What the tasks that run will cost."""

    def known(self, task_uuid: Any) -> Task | None:
        task = self.tasks.get(task_uuid) if isinstance(task_uuid, str) else None
        return None if task is None or task.forgotten else task
