"""`POST /_control`: what a test does with the Python object, as JSON."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tests.providers.wavespeed.faults import Fault, Outputs, TaskFails
from tests.providers.wavespeed.hooks import HookKind
from tests.providers.wavespeed.requests import Recorded, Reply

if TYPE_CHECKING:
    from tests.providers.wavespeed.stand_in import WaveSpeedStandIn


class _Order(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    pass


class FailNext(_Order, frozen=True, tag="fail_next"):
    where: str
    fault: Fault
    times: int | None = 1


class ClearFaults(_Order, frozen=True, tag="clear_faults"):
    pass


class Set(_Order, frozen=True, tag="set", omit_defaults=True):
    """Attributes of the stand-in, by their names."""

    processing_seconds: float | msgspec.UnsetType | None = msgspec.UNSET
    sync_seconds: float | msgspec.UnsetType = msgspec.UNSET
    list_lag_seconds: float | msgspec.UnsetType = msgspec.UNSET
    tasks_at_once: int | msgspec.UnsetType | None = msgspec.UNSET
    balance_nano: int | msgspec.UnsetType = msgspec.UNSET


class Complete(_Order, frozen=True, tag="complete"):
    id: str
    outputs: Outputs | None = None


class Fail(_Order, frozen=True, tag="fail"):
    id: str
    outcome: TaskFails | None = None


class SendHook(_Order, frozen=True, tag="send_hook"):
    id: str
    kind: HookKind = "good"
    url: str | None = None


class AddAccount(_Order, frozen=True, tag="add_account"):
    key: str
    balance_nano: int


class Report(_Order, frozen=True, tag="report"):
    """Nothing but the answer that all have."""


Order = FailNext | ClearFaults | Set | Complete | Fail | SendHook | AddAccount | Report


class Control:
    def __init__(self, stand_in: "WaveSpeedStandIn") -> None:
        self._stand_in = stand_in

    async def act(self, request: Recorded) -> Reply:
        """Do it; answer with the state then."""
        try:
            await self._do(msgspec.json.decode(request.body or b'{"do": "report"}', type=Order))
        except (msgspec.MsgspecError, ValueError, LookupError) as error:
            return Reply(400, msgspec.json.encode({"error": str(error)}))
        return Reply(200, msgspec.json.encode(self._report()))

    async def _do(self, order: Order) -> None:
        acts: dict[type, Callable[[Any], object]] = {
            FailNext: lambda one: self._stand_in.fail_next(one.where, one.fault, one.times),
            ClearFaults: lambda _: self._stand_in.clear_faults(),
            Set: self._set,
            Complete: lambda one: self._stand_in.complete(one.id, one.outputs),
            Fail: lambda one: self._stand_in.fail(one.id, one.outcome),
            AddAccount: lambda one: self._stand_in.add_account(one.key, one.balance_nano),
            Report: lambda _: None,
        }
        if isinstance(order, SendHook):
            await self._stand_in.send_hook(order.id, order.kind, url=order.url)
        else:
            acts[type(order)](order)

    def _set(self, order: Set) -> None:
        for name in Set.__struct_fields__:
            value = getattr(order, name)
            if value is not msgspec.UNSET:
                setattr(self._stand_in, name, value)

    def _report(self) -> dict[str, Any]:
        stand_in = self._stand_in
        return {
            "url": stand_in.url,
            "key": stand_in.key,
            "balance_nano": stand_in.balance_nano,
            "webhook_secret": stand_in.webhook_secret,
            "submits": stand_in.submits,
            "polls": stand_in.polls,
            "predictions": [
                {"id": one.id, "model": one.model, "status": one.status, "deleted": one.deleted}
                for one in stand_in.predictions.values()
            ],
            "hooks": [
                {"id": one.prediction_id, "kind": one.kind, "status": one.status, "error": one.error}
                for one in stand_in.hooks
            ],
            "faults": stand_in.faults.report(),
        }
