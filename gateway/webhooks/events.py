"""What a customer can be told of, by the names that stand in `type`."""

import difflib
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from gateway.errors import InvalidRequest


class EventType(StrEnum):
    """Those of money are the kinds of the ledger's notices."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    BALANCE_LOW = "balance.low"
    BALANCE_CRITICAL = "balance.critical"
    BUDGET_ALERT = "budget.alert"
    DISPUTE_OPENED = "dispute.opened"
    ACCOUNT_FROZEN = "account.frozen"
    ACCOUNT_UNFROZEN = "account.unfrozen"
    PAYMENT_FAILED = "payment.failed"
    AUTO_TOP_UP_CAPPED = "auto_top_up.capped"
    AUTO_TOP_UP_DISABLED = "auto_top_up.disabled"
    ENDPOINT_DISABLED = "endpoint.disabled"
    WEBHOOK_TEST = "webhook.test"


SUBSCRIBABLE: Final = frozenset(EventType) - {EventType.WEBHOOK_TEST}
"""What an endpoint can choose; a test is for the endpoint that was asked for."""


def check_events(names: Sequence[str] | None) -> list[str] | None:
    """Sorted, each once; None is all. Raises InvalidRequest."""
    if names is None:
        return None
    known = sorted(SUBSCRIBABLE)
    for name in names:
        if name not in SUBSCRIBABLE:
            nearest = difflib.get_close_matches(name[:100], known, n=1)
            raise InvalidRequest(
                f"events: {name[:100]!r} is no event; there are {', '.join(known)}",
                param="events",
                suggestion=nearest[0] if nearest else None,
            )
    if not names:
        raise InvalidRequest("events must name an event; leave it out for all of them", param="events")
    return sorted(set(names))
