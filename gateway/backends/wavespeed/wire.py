"""What WaveSpeed sends, decoded without trust: typed, so that nesting costs nothing, and never in part."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from gateway.backends.remote.wire import MAX_BALANCE_DIGITS, decode, usd_to_nano

T = TypeVar("T")

_MOST_COMMAS: Final = 300_000
"""In one body, also those within texts: a page of a hundred songs with long lyrics has a tenth of that."""
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_SECRET: Final = re.compile(r"(?:whsec_)?([!-~]{8,256})", re.ASCII)


class Garbage(Exception):
    """Not what the documentation says."""


class Input(msgspec.Struct, frozen=True):
    """What a prediction is made of. An echo may leave things out."""

    tags: str | None = None
    lyrics: str | None = None
    duration: float | None = None
    seed: int | None = None


class Prediction(msgspec.Struct, frozen=True):
    """One task, as far as we look at it."""

    id: str = ""
    model: str | None = None
    status: str = ""
    outputs: list[Any] | None = None
    code: int | None = 0
    created_at: str | None = None
    input: msgspec.Raw = msgspec.Raw()

    @property
    def asked(self) -> Input | None:
        """The echo of the request; None where there is none that can be read."""
        return decode(_input, self.input) if bytes(self.input) else None

    @property
    def moment(self) -> datetime | None:
        """When it was accepted, by the vendor's clock."""
        try:
            when = datetime.fromisoformat(self.created_at or "")
        except ValueError:
            return None
        return when if when.tzinfo else when.replace(tzinfo=UTC)


class _One(msgspec.Struct, frozen=True):
    data: Prediction


class _Page(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]


class _Listed(msgspec.Struct, frozen=True):
    data: _Page


class _Problem(msgspec.Struct, frozen=True):
    code: int = 0


class _Refusal(msgspec.Struct, frozen=True):
    data: _Problem


class _Account(msgspec.Struct, frozen=True):
    balance: Decimal


class _Balance(msgspec.Struct, frozen=True):
    data: _Account


class _Signing(msgspec.Struct, frozen=True):
    secret: str


class _Secret(msgspec.Struct, frozen=True):
    data: _Signing


_input: Final = msgspec.json.Decoder(Input)
_one: Final = msgspec.json.Decoder(_One)
_item: Final = msgspec.json.Decoder(Prediction)
_listed: Final = msgspec.json.Decoder(_Listed)
_refusal: Final = msgspec.json.Decoder(_Refusal)
_balance: Final = msgspec.json.Decoder(_Balance)
_secret: Final = msgspec.json.Decoder(_Secret)


def is_id(text: str) -> bool:
    """Whether it can stand in a path and in the database."""
    return _ID.fullmatch(text) is not None


def read_prediction(body: bytes, *, expected: str | None = None) -> Prediction:
    """One task with a usable id; `expected`: which. Raises Garbage."""
    found = _document(_one, body).data
    if not is_id(found.id) or expected not in {None, found.id}:
        raise Garbage
    return found


def read_page(body: bytes) -> tuple[list[Prediction], int]:
    """The tasks of a page that can be read, and how many there are in all. Raises Garbage."""
    if body.count(b",") > _MOST_COMMAS:
        raise Garbage  # millions of small values would take a hundred times the memory of their text
    items = _document(_listed, body).data.items
    found = []
    for item in items:
        one = decode(_item, item)
        if one is not None and is_id(one.id):  # one of another kind says nothing about ours
            found.append(one)
    return found, len(items)


def read_problem(body: bytes) -> int:
    """The vendor's code in the body of a refusal; 0 where there is none."""
    refusal = decode(_refusal, body)
    return 0 if refusal is None else refusal.data.code


def read_balance_nano(body: bytes) -> int:
    """Raises Garbage."""
    nano = usd_to_nano(_document(_balance, body).data.balance, max_digits=MAX_BALANCE_DIGITS)
    if nano is None:
        raise Garbage
    return nano


def read_secret(body: bytes) -> str:
    """What webhooks are signed with, without its prefix. Raises Garbage."""
    match = _SECRET.fullmatch(_document(_secret, body).data.secret)
    if match is None:
        raise Garbage
    return match[1]


def _document(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    document = decode(decoder, body)
    if document is None:
        raise Garbage
    return document
