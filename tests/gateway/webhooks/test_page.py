"""What the page tells receivers to do works on messages that were really sent."""

import re
from typing import Any

import pytest

from gateway.webhooks import claims, sending
from gateway.webhooks.deliveries import STATES
from gateway.webhooks.endpoints import MAX_ENDPOINTS
from gateway.webhooks.events import EventType
from gateway.webhooks.rotation import rotate_endpoint_secret
from gateway.webhooks.schedule import DELAYS_SECONDS, Kind
from tests.docs.code_blocks import ROOT, blocks
from tests.gateway.webhooks.conftest import Office
from tests.gateway.webhooks.receiver import Receiver
from tests.workbench import Workbench

PAGE = "docs/webhooks.md"
TEXT = (ROOT / PAGE).read_text()
UNITS = {"s": 1, "min": 60, "h": 3600}


async def test_both_ways_to_verify_take_what_was_sent_and_nothing_else(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/hooks"))
    secret = await rotate_endpoint_secret(office.pool, office.secrets, customer, endpoint.id)
    await office.deliverer.test_send(customer, endpoint.id)
    (message,) = receiver.received
    found = blocks(PAGE, "Verify")
    assert len(found) == 2
    for block in found:
        names: dict[str, Any] = {}
        exec(compile(block.code, PAGE, "exec"), names)  # noqa: S102 - our own page
        told = names["verified"](secret.value, message.headers, message.body)
        assert told["type"] == "webhook.test"
        for headers, body in (
            (message.headers, message.body + b" "),
            (message.headers | {"webhook-id": "msg_1"}, message.body),
            (message.headers | {"webhook-timestamp": "1700000000"}, message.body),
        ):
            with pytest.raises(Exception, match=r"signature|gateway|old"):
                names["verified"](secret.value, headers, body)


def test_the_page_has_every_event_and_every_state() -> None:
    section = re.findall(r"^\| (`[a-z].*?) \|", TEXT, re.MULTILINE)
    words = {word for row in section for word in re.findall(r"`([a-z_.]+)`", row)}
    assert words == {*EventType, *STATES}


def test_the_page_has_the_schedule() -> None:
    (row,) = re.findall(r"^\| after the one before \| at once \| (.+) \|$", TEXT, re.MULTILINE)
    seconds = [int(n) * UNITS[unit] for n, unit in (cell.split() for cell in row.split(" | "))]
    assert (0, *seconds) == DELAYS_SECONDS[Kind.WEBHOOK]
    assert DELAYS_SECONDS[Kind.UPLOAD] == (0, 5, 30, 120, 600)
    assert "5 s, 30 s, 2 min and 10 min" in TEXT


def test_the_page_has_the_limits() -> None:
    assert f"up to {MAX_ENDPOINTS}," in TEXT
    assert f"within {sending.WEBHOOK_SECONDS:.0f} seconds" in TEXT
    assert claims.AT_ONCE_PER_LANE == 4
    assert "At most four messages" in TEXT
