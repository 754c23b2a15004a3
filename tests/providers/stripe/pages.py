"""The pages that people see: checkout, receipt, the bank's authentication. Plain HTML."""

from html import escape

from tests.providers.stripe.cards import CARDS, GOOD, Card
from tests.providers.stripe.collection import Json

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 3rem auto; padding: 0 1rem }
h1 { font-size: 2rem; margin: 0 }
ul { padding: 0; list-style: none }
li { display: flex; justify-content: space-between }
label { display: block; margin: 1rem 0 }
input, select, button { width: 100%; padding: .5rem; margin: .3rem 0; font: inherit; box-sizing: border-box }
input[type=checkbox] { width: auto }
button.first { background: #1a1f36; color: #fff; border: 0 }
[role=alert] { color: #b3093c }
small { color: #697386 }
"""


def money(amount: int, currency: str) -> str:
    sign = {"usd": "$", "eur": "€", "gbp": "£"}.get(currency, f"{currency.upper()} ")
    return f"{sign}{amount // 100:,}.{amount % 100:02d}"


def checkout(session: Json, items: list[Json], *, error: str | None = None) -> str:
    """What a customer sees at a session's `url`."""
    if session["status"] != "open":
        return _page(
            "Checkout", f"<p>This page is {escape(session['status'])}: there is nothing to do here.</p>"
        )
    pays = session["mode"] == "payment"
    title = money(session["amount_total"], session["currency"]) if pays else "Save a card"
    lines = "".join(
        f"<li><span>{escape(item['description'])} &times; {item['quantity']}</span>"
        f"<span>{money(item['amount_total'], item['currency'])}</span></li>"
        for item in items
    )
    alert = f'<p role="alert">{escape(error)}</p>' if error else ""
    offered = (session["saved_payment_method_options"] or {}).get("payment_method_save") == "enabled"
    cards = "".join(_option(card) for card in CARDS if card.kind in session["payment_method_types"])
    save = '<label><input type="checkbox" name="save" value="true"> Save this card for later</label>'
    here = f"/c/pay/{session['id']}"
    return _page(
        f"{title} - Checkout",
        f"<h1>{title}</h1><ul>{lines}</ul>{alert}"
        f'<form method="post" action="{here}/pay">{_email(session)}'
        f'<label>Card <select name="card">{cards}</select></label>'
        f"{save if offered else ''}"
        f'<button class="first">{"Pay" if pays else "Save"}</button>'
        f'<button formaction="{here}/decline">Decline</button></form>'
        f'<form method="post" action="{here}/leave"><button>Leave</button></form>'
        "<small>Test mode: no money moves.</small>",
    )


def _email(session: Json) -> str:
    if session["customer"] or session["customer_email"]:
        return ""
    return '<label>Email <input type="email" name="email" value="customer@example.com"></label>'


def _option(card: Card) -> str:
    number = " ".join(card.number[place : place + 4] for place in range(0, len(card.number), 4))
    chosen = " selected" if card.number == GOOD else ""
    name = escape(card.token.removeprefix("pm_").removeprefix("card_"))
    return f'<option value="{card.number}"{chosen}>{number} ({name})</option>'


def authentication(intent: Json) -> str:
    """The bank's page, on which a customer confirms a payment."""
    here = f"/authenticate/{intent['id']}"
    return _page(
        "Authenticate",
        f"<h1>{money(intent['amount'], intent['currency'])}</h1><p>Is this payment yours?</p>"
        f'<form method="post" action="{here}/complete"><button class="first">Complete</button></form>'
        f'<form method="post" action="{here}/fail"><button>Fail</button></form>',
    )


def receipt(charge: Json) -> str:
    details = charge["payment_method_details"]
    last4 = details[details["type"]]["last4"]
    refunded = money(charge["amount_refunded"], charge["currency"])
    back = f"<li><span>Refunded</span><span>{refunded}</span></li>" if charge["amount_refunded"] else ""
    paid = money(charge["amount"], charge["currency"])
    return _page(
        "Receipt",
        f"<h1>Receipt</h1><p>{escape(charge['id'])}, paid by the account ending in {escape(last4)}</p>"
        f"<ul><li><span>Amount paid</span><span>{paid}</span></li>{back}</ul>",
    )


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )
