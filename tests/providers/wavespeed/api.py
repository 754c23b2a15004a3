"""The vendor's operations, on the account of the key that asks."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from tests.providers.wavespeed import models, odd, sounds
from tests.providers.wavespeed.faults import Outputs, Takes, TaskFails
from tests.providers.wavespeed.models import INVALID, MISSING, MODELS, NANO, Refusal
from tests.providers.wavespeed.predictions import Account, Prediction
from tests.providers.wavespeed.requests import Recorded, Reply, json_of, success, whole_number
from tests.providers.wavespeed.uploads import Uploads

if TYPE_CHECKING:
    from tests.providers.wavespeed.stand_in import WaveSpeedStandIn

PAGE = 20
MOST_PAGE = 100
PUBLIC = ("put", "output", "file")
METADATA = "http://169.254.169.254/latest/meta-data/"


class Api:
    """Each method answers one kind of request, or raises Refusal."""

    def __init__(self, stand_in: "WaveSpeedStandIn") -> None:
        self._stand_in = stand_in
        self._uploads = Uploads(stand_in)

    async def act(self, request: Recorded) -> Reply:
        if request.action in PUBLIC:
            open_to_all: Callable[[Recorded], Awaitable[Reply]] = self._doer(request.action)
            return await open_to_all(request)
        account = self._account(request)
        if not request.action:
            raise Refusal(404, f"{request.method} {request.path} not found")
        own: Callable[[Recorded, Account], Awaitable[Reply]] = self._doer(request.action)
        return await own(request, account)

    def _doer(self, action: str) -> Any:
        return getattr(self._uploads if hasattr(self._uploads, action) else self, action)

    def _account(self, request: Recorded) -> Account:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        account = self._stand_in.accounts.get(key) if scheme == "Bearer" else None
        if account is None:
            raise Refusal(401, "invalid authentication")
        return account

    async def submit(self, request: Recorded, account: Account) -> Reply:
        models.model_named(request.named)
        asked = models.read(request.named, json_of(request), request.query.get("webhook"))
        most = self._stand_in.tasks_at_once
        if most is not None and account.running >= most:
            raise Refusal(429, "too many requests", retry_after=1)
        if not account.can_pay(asked.cost_nano):
            raise Refusal(402, "insufficient balance")
        faults = self._stand_in.faults
        made = account.accept(
            asked,
            self._stand_in.url,
            outcome=faults.take_of_task(TaskFails),
            outputs=faults.take_of_task(Outputs),
        )
        takes = faults.take_of_task(Takes)
        created = made.shown()
        await self._stand_in.sender.accepted(account, made)
        account.start(made, takes.seconds if takes else self._stand_in.processing_seconds)
        return await self._awaited(made) if asked.sync else success(created)

    async def _awaited(self, made: Prediction) -> Reply:
        """The final state; or, when patience ends, what it is then."""
        try:
            async with asyncio.timeout(self._stand_in.sync_seconds):
                await made.ended.wait()
        except TimeoutError:
            where = f"{made.base_url}/api/v3/predictions/{made.id}/result"
            error = f"Sync mode timed out after {self._stand_in.sync_seconds:g} seconds. See {where}"
            return success(made.shown() | {"code": 5004, "error": error})
        return await self._shown(made)

    async def _shown(self, prediction: Prediction) -> Reply:
        text = None
        if prediction.asked.base64 and prediction.status == "completed":
            content, _ = await _rendered(prediction)
            text = b64encode(content).decode()
        return success(prediction.shown(text))

    async def result(self, request: Recorded, account: Account) -> Reply:
        found = account.find(request.named)
        if found is None:
            raise Refusal(404, "prediction not found")
        return await self._shown(found)

    async def listed(self, request: Recorded, account: Account) -> Reply:
        wanted = models.objects(json_of(request, empty={}))
        page = whole_number(wanted, "page", 1, 10**9, default=1)
        size = whole_number(wanted, "page_size", 1, MOST_PAGE, default=PAGE)
        until = datetime.now(UTC) - timedelta(seconds=self._stand_in.list_lag_seconds)
        after, before = _moment(wanted, "created_after"), _moment(wanted, "created_before")
        found = [
            one
            for one in account.newest()
            if one.created_at <= until
            and wanted.get("model") in (None, "", one.model)
            and wanted.get("status") in (None, "", one.status)
            and (after is None or one.created_at >= after)
            and (before is None or one.created_at <= before)
        ]
        shown = [one.shown() for one in islice(found, (page - 1) * size, page * size)]
        return success({"page": page, "total": len(found), "items": shown})

    async def delete(self, request: Recorded, account: Account) -> Reply:
        ids = models.objects(json_of(request)).get("ids")
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise Refusal(400, "property ids must be an array of strings", code=INVALID)
        return success({"deleted_count": account.delete(ids)})

    async def balance(self, request: Recorded, account: Account) -> Reply:
        data: dict[str, Any] = {"balance": account.balance_nano / NANO}
        return success(data | {"currency": "USD"} if "/account/" in request.path else data)

    async def pricing(self, request: Recorded, _: Account) -> Reply:
        wanted = models.objects(json_of(request))
        name, inputs = wanted.get("model_id"), models.objects(wanted.get("inputs", {}))
        if not isinstance(name, str):
            raise Refusal(400, "property model_id is required", code=MISSING)
        nano = models.price(name, inputs)
        return success({"model_id": name, "unit_price": nano / NANO, "currency": "USD"})

    async def models(self, _: Recorded, __: Account) -> Reply:
        return success(
            [
                {
                    "model_id": one.name,
                    "name": one.title,
                    "type": "text-to-audio",
                    "description": f"{one.title}: music from tags and lyrics",
                    "base_price": one.nano_per_second / NANO,
                }
                for one in MODELS.values()
            ]
        )

    async def secret(self, _: Recorded, account: Account) -> Reply:
        return success({"secret": account.webhook_secret})

    async def output(self, request: Recorded) -> Reply:
        found = self._of_output(request)
        kind = found.outputs.kind if found and found.outputs else ""
        if found is None or kind == "missing":
            raise Refusal(404, "file not found")
        if kind == "redirect":
            return Reply(302, b"", {"location": METADATA})
        content, media_type = await _rendered(found)
        return Reply(200, content, media_type=media_type)

    def endless_output(self, request: Recorded, reply: Reply) -> AsyncIterator[bytes] | None:
        """The blocks of a file that is huge."""
        found = self._of_output(request)
        if found is None or found.outputs is None or found.outputs.kind != "huge":
            return None
        return odd.followed(reply.body, b"\x00", sounds.HUGE_BYTES)

    def _of_output(self, request: Recorded) -> Prediction | None:
        prediction_id = request.named.partition(".")[0]
        found = (one.find(prediction_id) for one in self._stand_in.accounts.values())
        return next((one for one in found if one), None)


async def _rendered(prediction: Prediction) -> tuple[bytes, str]:
    return await asyncio.to_thread(sounds.output, prediction.seconds, prediction.seed, prediction.outputs)


def _moment(members: dict[str, Any], field: str) -> datetime | None:
    value = members.get(field)
    if value in (None, ""):
        return None
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise Refusal(400, f"property {field} must be an ISO 8601 time", code=INVALID) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
