"""Runware's answers, read by somebody who trusts none of them: what is not as documented is not there."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from gateway.backends.remote.wire import MAX_BALANCE_DIGITS, decode, usd_to_nano
from gateway.generation import MAX_SEED

_MOST_COMMAS: Final = 50_000
"""In one body, also those within texts: millions of small values would keep this process from all else."""
_NUMBER_BYTES: Final = 64
_MAX_COST_DIGITS: Final = 5
"""Of whole dollars."""
_URL_CHARACTERS: Final = 4_096
_BALANCES: Final = ("amount", "available", "total", "value", "balance", "usd", "USD")
"""Members of a balance that is an object; the vendor names them nowhere."""
_WORD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")

T = TypeVar("T")
Members = dict[str, msgspec.Raw]

_object: Final = msgspec.json.Decoder(Members)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_string: Final = msgspec.json.Decoder(str)
_integer: Final = msgspec.json.Decoder(int)
_float: Final = msgspec.json.Decoder(float)
_decimal: Final = msgspec.json.Decoder(Decimal)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One member of `data`."""

    task: str
    status: str | None
    progress: float
    """From 0 to 1."""
    audio: str | None
    """Its id; two items with the same are one file."""
    url: str | None
    seed: int | None
    cost: Decimal | None
    media: str | None
    balance: Decimal | None


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One member of `errors`, without the vendor's prose: it may quote what customers wrote."""

    code: str
    """Empty where there is none that could be one."""
    task: str | None
    parameter: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one request."""

    status: int
    retry_after_seconds: float | None = None
    is_readable: bool = False
    """It has the members that an answer has, be they empty."""
    items: tuple[Item, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    def items_of(self, ref: str) -> list[Item]:
        """What is said of one task."""
        return [item for item in self.items if item.task == ref]

    def trouble_of(self, ref: str) -> Trouble | None:
        """The first error that names this task."""
        return next((trouble for trouble in self.troubles if trouble.task == ref), None)

    @property
    def general_trouble(self) -> Trouble | None:
        """An error that names no task, so that it is about all of the request."""
        return next((trouble for trouble in self.troubles if trouble.task is None), None)


def read_reply(status: int, body: bytes, *, retry_after_seconds: float | None = None) -> Reply:
    """Of any body whatsoever; from one that cannot be read nothing is learned but the status."""
    document = (decode(_object, body) if body.count(b",") <= _MOST_COMMAS else None) or {}
    data, failed = _read(document, "data", _array), _read(document, "errors", _array)
    answers = [members for raw in data or () if (members := _members(raw))]
    errors = [members for raw in failed or () if (members := _members(raw))]
    if alone := _members(document.get("error")):
        errors.append(alone)
    troubles = [_trouble(members, _text(members, "taskUUID")) for members in errors]
    return Reply(
        status=status,
        retry_after_seconds=retry_after_seconds,
        is_readable=data is not None or failed is not None,
        items=tuple(item for members in answers if (item := _item(members))),
        troubles=(*troubles, *_troubles_among(answers)),
    )


def cost_nano(costs: Iterable[Decimal | None]) -> int | None:
    """Their sum; None where one of them is not told."""
    total = Decimal(0)
    for cost in costs:
        if cost is None or cost < 0 or cost.adjusted() >= _MAX_COST_DIGITS:
            return None
        total += cost
    return usd_to_nano(total, max_digits=MAX_BALANCE_DIGITS)


def balance_nano(balance: Decimal | None) -> int | None:
    """Nano-USD, which may be owed; None where there is no such number."""
    return None if balance is None else usd_to_nano(balance, max_digits=MAX_BALANCE_DIGITS)


def _members(raw: msgspec.Raw | None) -> Members:
    return {} if raw is None else decode(_object, raw) or {}


def _item(members: Members) -> Item | None:
    task = _text(members, "taskUUID")
    if task is None:
        return None
    progress = _read(members, "progress", _float)
    seed = _read(members, "seed", _integer)
    url = _text(members, "audioURL")
    return Item(
        task=task,
        status=_text(members, "status"),
        progress=min(max(progress or 0.0, 0.0), 100.0) / 100,
        audio=_text(members, "audioUUID"),
        url=url if url and len(url) <= _URL_CHARACTERS else None,
        seed=seed if seed is not None and 0 <= seed <= MAX_SEED else None,
        cost=_number(members, "cost"),
        media=_text(members, "mediaUUID"),
        balance=_balance(members),
    )


def _balance(members: Members) -> Decimal | None:
    inner = _read(members, "balance", _object)
    if inner is None:
        return _number(members, "balance")
    return next((number for name in _BALANCES if (number := _number(inner, name)) is not None), None)


def _trouble(members: Members, task: str | None) -> Trouble:
    code, parameter = _text(members, "code"), _text(members, "parameter")
    return Trouble(code=_word(code), task=task, parameter=_word(parameter))


def _troubles_among(answers: Iterable[Members]) -> list[Trouble]:
    """A task that failed may also be an item, with its error inside."""
    found = []
    for members in answers:
        inner, task = _members(members.get("error")), _text(members, "taskUUID")
        failed = _text(members, "status") == "error"
        if task is not None and (failed or inner):
            trouble = _trouble(inner, task)
            found.append(trouble if trouble.code else msgspec.structs.replace(trouble, code="taskFailed"))
    return found


def _word(text: str | None) -> str:
    """Fit for a log."""
    return text if text and _WORD.fullmatch(text) else ""


def _number(members: Members, name: str) -> Decimal | None:
    """As it was written: no float comes between the vendor and us."""
    raw = members.get(name)
    if raw is None or len(bytes(raw)) > _NUMBER_BYTES:
        return None
    number = decode(_decimal, raw)
    return number if number is not None and number.is_finite() else None


def _text(members: Members, name: str) -> str | None:
    return _read(members, name, _string)


def _read(members: Members, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
    raw = members.get(name)
    return None if raw is None else decode(decoder, raw)
