"""The vendor behind the wire: one method per task type, whatever transport the task came by."""

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from tests.providers.runware import rules
from tests.providers.runware.account import NANO, Account, Json, Media
from tests.providers.runware.faults import Fault
from tests.providers.runware.generation import Answer, Generation
from tests.providers.runware.handed_over import content_of
from tests.providers.runware.refusals import Refusal

Method = Callable[[Account, Json, Fault | None], Awaitable[Answer]]


class Service(Generation):
    async def handle(self, account: Account, task: Json, fault: Fault | None = None) -> Answer:
        """What one task is answered; a refusal stands in its `errors`."""
        try:
            return await self._method_of(task)(account, task, fault)
        except Refusal as refusal:
            return Answer(errors=[refusal.error(task)], status=refusal.status)

    def _method_of(self, task: Json) -> Method:
        methods: dict[Any, Method] = {
            "audioInference": self._generate,
            "getResponse": self._get_response,
            "getTaskDetails": self._get_details,
            "mediaStorage": self._store,
            "accountManagement": self._manage,
            "ping": self._ping,
        }
        kind = task.get("taskType")
        if not kind:
            raise rules.missing("taskType")
        if not isinstance(kind, str) or kind not in methods:
            raise Refusal("unsupportedTaskType", parameter="taskType")
        if kind != "ping":
            if "taskUUID" not in task:
                raise rules.missing("taskUUID")
            rules.check_uuid("taskUUID", task["taskUUID"])
        return methods[kind]

    async def _ping(self, _: Account, __: Json, ___: Fault | None) -> Answer:
        return Answer([{"taskType": "ping", "pong": True}])

    async def _store(self, account: Account, asked: Json, _: Fault | None) -> Answer:
        operation, media = asked.get("operation"), asked.get("media")
        if operation not in ("upload", "delete"):
            raise rules.invalid("operation", "must be upload or delete", allowedValues=["upload", "delete"])
        if not isinstance(media, str) or not media:
            raise rules.missing("media")
        item: Json = {
            "taskType": "mediaStorage",
            "taskUUID": asked["taskUUID"],
            "operation": operation,
        }
        if operation == "delete":
            if not account.media.pop(media, None):
                raise rules.invalid("media", "is no stored media")
            return Answer([item | {"mediaUUID": media}])
        stored = Media(str(uuid.uuid4()), await content_of(self.deliveries.http, "media", media))
        account.media[stored.uuid] = stored
        self.files.add_media(stored)
        return Answer([item | {"mediaUUID": stored.uuid, "mediaURL": f"{self.origin}/media/{stored.uuid}"}])

    async def _manage(self, account: Account, asked: Json, _: Fault | None) -> Answer:
        if asked.get("operation") != "getDetails":
            raise rules.invalid("operation", "must be getDetails", allowedValues=["getDetails"])
        return Answer(
            [
                {
                    "taskType": "accountManagement",
                    "taskUUID": asked["taskUUID"],
                    "operation": "getDetails",
                    "organizationUUID": account.organization,
                    "organizationName": "Stand-in",
                    "balance": account.balance_nano / NANO,
                    "team": [],
                    "apiKeys": [{"name": "default", "enabled": True}],
                    "usage": {"total": {"requests": len(account.tasks)}},
                }
            ]
        )
