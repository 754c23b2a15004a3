"""`audioInference` from its acceptance to its end, and what is said of it meanwhile."""

import base64
import random
from dataclasses import dataclass, field

from tests.providers.runware import audio, rules
from tests.providers.runware.account import NANO, Account, Json, Task
from tests.providers.runware.faults import Drop, Fault, Outputs, TaskFails
from tests.providers.runware.handed_over import content_of
from tests.providers.runware.refusals import Refusal
from tests.providers.runware.vendor import Vendor

_PRIVATE = "http://169.254.169.254/latest/meta-data/"


@dataclass(slots=True)
class Answer:
    """Of one task. `running` is the task that a socket gets the end of later, unasked."""

    data: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)
    status: int = 200
    running: Task | None = None


class Generation(Vendor):
    async def _generate(self, account: Account, asked: Json, fault: Fault | None) -> Answer:
        model = rules.check(asked)
        seconds = await self._seconds(account, asked)
        known = account.known(asked["taskUUID"])
        if known:
            known.offered += 1
            raise Refusal("conflictTaskUUID", parameter="taskUUID")
        cost_nano = round(model.nano_per_second * seconds) * asked.get("numberResults", 1)
        if account.balance_nano - account.promised_nano < cost_nano:
            raise Refusal("insufficientCredits")
        task = self._accept(account, asked, seconds, cost_nano, fault)
        later = asked.get("deliveryMethod") == "async" or "webhookURL" in asked or isinstance(fault, Drop)
        if later:
            return Answer([{"taskType": "audioInference", "taskUUID": task.uuid}])
        await self.ending(task)
        return self.result(task, failed_status=400)

    def result(self, task: Task, *, failed_status: int = 200) -> Answer:
        """Its items or its error, as they are now."""
        if task.state == "error" and task.error:
            return Answer(errors=[task.error], status=failed_status)
        if task.state == "success":
            return Answer(task.items)
        item: Json = {"taskType": "audioInference", "taskUUID": task.uuid, "status": "processing"}
        return Answer([item | {"progress": task.progress}], running=task)

    async def _get_response(self, account: Account, asked: Json, _: Fault | None) -> Answer:
        task = account.known(asked["taskUUID"])
        if task is None:
            raise Refusal("taskNotFound", parameter="taskUUID")
        return self.result(task)

    async def _get_details(self, account: Account, asked: Json, _: Fault | None) -> Answer:
        task = account.known(asked["taskUUID"])
        if task is None:
            raise Refusal("taskNotFound", parameter="taskUUID")
        now = self.result(task)
        response = {"errors": now.errors} if now.errors else {"data": now.data}
        return Answer(
            [
                {
                    "taskType": "getTaskDetails",
                    "taskUUID": task.uuid,
                    "request": [task.request],
                    "response": response,
                }
            ]
        )

    async def _seconds(self, account: Account, asked: Json) -> float:
        """Of the music to make; a source's length, with what a window outside it adds."""
        source = asked.get("inputs", {}).get("audio")
        if source is None:
            return float(asked.get("duration", 60))
        stored = account.media.get(source)
        content = stored.content if stored else await content_of(self.deliveries.http, "inputs.audio", source)
        try:
            length = audio.length_of(content)
        except ValueError:
            raise rules.invalid("inputs.audio", "is no audio") from None
        window = asked.get("settings", {})
        before, end = -window.get("repaintingStart", 0), window.get("repaintingEnd", 0)
        return float(max(0, before) + max(length, end))

    def _accept(
        self, account: Account, asked: Json, seconds: float, cost_nano: int, fault: Fault | None
    ) -> Task:
        former = account.tasks.get(asked["taskUUID"])
        task = Task(asked["taskUUID"], asked, seconds, cost_nano, self.processing_seconds)
        if former:
            task.accepted, task.offered = former.accepted + 1, former.offered + 1
        task.failure = fault if isinstance(fault, TaskFails) else None
        task.outputs = fault if isinstance(fault, Outputs) else None
        if "webhookURL" in asked:
            task.hook = self.deliveries.take(self.faults)
        account.tasks[task.uuid] = task
        account.promised_nano += cost_nano
        self._prepare(task)
        if task.hook and task.hook.kind == "early":
            self.start(self.deliveries.hook(task))
        self.start(self._run(account, task))
        return task

    def _prepare(self, task: Task) -> None:
        """The items as they will be; nobody sees them before the end."""
        asked, kind = task.request, task.outputs.kind if task.outputs else None
        count: int = asked.get("numberResults", 1)
        first = asked.get("seed", random.randrange(2**31))
        shown = {"none": 0, "fewer": count - 1}.get(kind or "", count)
        for place in range(shown):
            seed = (first + place) % 2**31
            stored = self.files.add(task, seed, kind)
            item: Json = {
                "taskType": "audioInference",
                "taskUUID": task.uuid,
                "status": "success",
                "audioUUID": stored.uuid,
                "seed": seed,
            }
            if asked.get("outputType", "URL") == "URL":
                base = _PRIVATE if kind == "private" else f"{self.origin}/files/"
                item["audioURL"] = f"{base}{stored.name}"
            else:
                item["result"] = True  # without it one package polls for ever
            if asked.get("includeCost"):
                item["cost"] = task.cost_nano / count / NANO
            task.items.append(item)

    async def _run(self, account: Account, task: Task) -> None:
        await self.pause(task.processing_seconds)
        await self.flow.wait()
        await self.end(account, task)

    async def end(self, account: Account, task: Task) -> None:
        """Once: in success, which is charged, or in failure, which is not."""
        if task.closing:
            await self.ending(task)
            return
        task.closing = True
        if task.failure:
            task.state = "error"
            task.error = {
                "code": task.failure.code,
                "message": task.failure.message,
                "taskType": "audioInference",
                "taskUUID": task.uuid,
                "status": "error",
            }
        else:
            await self._fill(task)
            task.state = "success"
            account.balance_nano -= task.cost_nano
        account.promised_nano -= task.cost_nano
        task.ended.set()
        if "webhookURL" in task.request and not (task.hook and task.hook.kind == "early"):
            self.start(self.deliveries.hook(task))
        if task.state == "success" and "uploadEndpoint" in task.request:
            for item in task.items:
                self.start(self._upload(task, item["audioUUID"]))

    async def _fill(self, task: Task) -> None:
        """Bytes where bytes were asked."""
        output_type = task.request.get("outputType", "URL")
        for item in task.items if output_type != "URL" else ():
            stored = self.files.of(item["audioUUID"])
            encoded = base64.b64encode(await self.files.content(stored)).decode()
            if output_type == "base64Data":
                item["audioBase64Data"] = encoded
            else:
                item["audioDataURI"] = f"data:{stored.content_type};base64,{encoded}"

    async def _upload(self, task: Task, audio_uuid: str) -> None:
        stored = self.files.of(audio_uuid)
        content = await self.files.content(stored)
        await self.deliveries.put(task.request["uploadEndpoint"], content, stored.content_type)
