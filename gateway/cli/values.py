"""Values of options: ids, money, moments, words - each with an error that says what to write."""

import uuid
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import click

import billing

Conn: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class IdType(click.ParamType[uuid.UUID]):
    """An id in its public spelling: 32 hexadecimal digits."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> uuid.UUID:
        """Dashes are tolerated."""
        try:
            return value if isinstance(value, uuid.UUID) else uuid.UUID(hex=value)
        except ValueError:
            self.fail(f"{value!r} is no id", param, ctx)


class UsdType(click.ParamType[int]):
    """A decimal number of dollars, kept as integer nano-USD."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Never through a float."""
        try:
            nano = value if isinstance(value, int) else billing.parse_usd(value)
        except billing.MoneyFormatError as error:
            self.fail(str(error), param, ctx)
        if nano < 0:
            self.fail("a negative amount", param, ctx)
        return nano


class MomentType(click.ParamType[datetime]):
    """A time in ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """2026-12-31 or 2026-12-31T12:00:00Z"""
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-12-31T00:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class WordsType(click.ParamType[list[str]]):
    """Words between commas, at least one: an empty list would forbid everything."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """a, b"""
        words = (
            value if isinstance(value, list) else [word.strip() for word in value.split(",") if word.strip()]
        )
        if not words:
            self.fail("the list is empty; leave the option out for no limit", param, ctx)
        return words


class TextType(click.ParamType[str]):
    """Something that a person can read."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Without the blanks around it."""
        text = str(value).strip()
        if not text or not text.isprintable():
            self.fail("write some words on one line", param, ctx)
        return text


ID, USD, MOMENT, WORDS, TEXT = IdType(), UsdType(), MomentType(), WordsType(), TextType()
