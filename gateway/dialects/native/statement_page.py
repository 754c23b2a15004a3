"""A month's statement as one page to read and to print: no script, nothing loaded, all text escaped."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Final

from gateway.dialects.native.render import iso
from gateway.dialects.native.statement_views import StatementLine, StatementView

_STYLE: Final = """
@page { size: A4; margin: 18mm 16mm }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 54rem; margin: 0 auto; padding: 2rem 1.5rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 }
h1 + p { font-size: 1.15rem; color: #555; margin: 0 0 1.5rem }
h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; break-after: avoid }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.5rem; margin: 0 0 2rem }
dt { color: #555 }
dd { margin: 0; overflow-wrap: anywhere }
table { width: 100%; border-collapse: collapse }
thead { display: table-header-group }
tr { break-inside: avoid }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0;
         border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th { color: #555; font-weight: 600 }
.n { text-align: right; padding-right: 0; padding-left: .75rem; white-space: nowrap }
.t { white-space: nowrap; width: 1% }
tbody th { color: inherit; font-weight: 400 }
tfoot td, .strong td, .strong th { font-weight: 600; border-bottom: 0 }
tfoot tr:first-child td, .strong td, .strong th { border-top: 2px solid #1a1a1a }
small, footer { color: #555; font-size: .85rem; overflow-wrap: anywhere }
td small { display: block }
footer { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: .75rem }
@media (max-width: 30rem) { body { padding: 1rem; font-size: 14px } .t { width: auto; white-space: normal } }
@media print { body { font-size: 10.5pt; max-width: none; padding: 0 } }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_MONTHS: Final = (
    "January February March April May June July August September October November December".split()
)


def statement_page(statement: StatementView, *, made_at: datetime) -> str:
    """The whole page."""
    year, _, number = statement.month.partition("-")
    title = f"{_MONTHS[int(number) - 1]} {year}"
    parts = (
        _facts(statement, made_at),
        _sums(statement),
        _section("Credits", _movements(statement.credits)),
        _section("Usage", _usage(statement)),
        _section("Deductions", _movements(statement.deductions)),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Statement {escape(statement.month)}, {escape(statement.organization)}</title>"
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>Statement of account</h1><p>{title}</p>\n"
        + "\n".join(parts)
        + "\n<footer>Amounts are exact, in USD. Added, charged and removed are the sums of the lines below "
        "them; only the total of the usage is rounded to cents, once.</footer>\n</body>\n</html>\n"
    )


def _facts(statement: StatementView, made_at: datetime) -> str:
    state = "final" if statement.final else "so far: the month is not over"
    facts = (
        ("Organization", f"<bdi>{escape(statement.organization)}</bdi>"),
        ("Account", escape(statement.organization_id)),
        ("Period", f"{_day(statement.start)} 00:00 to {_day(statement.end)} 00:00 UTC"),
        ("State", f"{state}; made at {_minute(iso(made_at))} UTC"),
    )
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts)}</dl>"


def _sums(statement: StatementView) -> str:
    rows = (
        ("Opening balance", statement.opening_usd),
        ("Added", statement.added_usd),
        ("Charged for songs", _minus(statement.charged_usd)),
        ("Removed", _minus(statement.removed_usd)),
    )
    body = "".join(f'<tr><th scope="row">{name}</th>{_number(amount)}</tr>' for name, amount in rows)
    closing = f'<tr class="strong"><th scope="row">Closing balance</th>{_number(statement.closing_usd)}</tr>'
    return f"<table><tbody>{body}{closing}</tbody></table>"


def _section(title: str, table: str) -> str:
    return f"<h2>{title}</h2>\n{table or '<p><small>None.</small></p>'}"


def _movements(lines: Sequence[StatementLine]) -> str:
    if not lines:
        return ""
    return _table(("Time (UTC)", "What"), ("USD",), map(_movement, lines))


def _movement(line: StatementLine) -> str:
    what = line.description if line.entries == 1 else f"{line.description}, {line.entries} times"
    about = "".join(
        f"<small><bdi>{escape(text)}</bdi></small>" for text in (line.external_ref, line.reason) if text
    )
    at = _minute(line.created_at) if line.created_at else ""
    return (
        f'<tr><td class="t">{at}</td><td>{escape(what.capitalize())}{about}</td>'
        f"{_number(line.amount_usd)}</tr>"
    )


def _usage(statement: StatementView) -> str:
    if not statement.usage:
        return ""
    rows = (
        f"<tr><td>{escape(line.model)}</td>{_number(str(line.jobs))}"
        f"{_number(f'{line.billed_seconds:.3f}')}{_number(line.cost_usd)}</tr>"
        for line in statement.usage
    )
    jobs = sum(line.jobs for line in statement.usage)
    seconds = sum(round(line.billed_seconds * 1000) for line in statement.usage) / 1000
    foot = (
        f"<tr><td>Total</td>{_number(str(jobs))}{_number(f'{seconds:.3f}')}{_number(statement.charged_usd)}</tr>"
        f'<tr><td colspan="3">Total, rounded to cents</td>{_number(statement.total_usd)}</tr>'
    )
    return _table(("Model",), ("Songs", "Seconds", "USD"), rows, foot=foot)


def _table(head: Sequence[str], numbers: Sequence[str], rows: Iterable[str], *, foot: str = "") -> str:
    cells = "".join(f'<th scope="col">{name}</th>' for name in head)
    cells += "".join(f'<th scope="col" class="n">{name}</th>' for name in numbers)
    end = f"<tfoot>{foot}</tfoot>" if foot else ""
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>{end}</table>"


def _number(text: str) -> str:
    return f'<td class="n">{escape(text)}</td>'


def _minus(amount: str) -> str:
    """Of an amount that is taken away; a sum of charges that is negative does not exist."""
    return f"-{amount}" if amount.strip("0.") else amount


def _day(moment: str) -> str:
    return escape(moment[:10])


def _minute(moment: str) -> str:
    return escape(f"{moment[:10]} {moment[11:16]}")
