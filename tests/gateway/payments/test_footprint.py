"""What payments cost a process that takes none, and what is never written down."""

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from gateway.observability import configure_logging
from gateway.settings import SettingsError, read_settings
from tests.gateway.payments.shop import WEBHOOK_SECRET, Shop

TELL = "\nimport sys; print([name for name in sys.modules if name.partition('.')[0] == 'stripe'])"


@pytest.mark.parametrize(
    "program",
    [
        "import billing",
        "import billing.payments",
        "import gateway.app, gateway.bootstrap",
        "import gateway.cli.admin, gateway.cli.payments, gateway.cli.reconcile",
        "import gateway.workers.process",
    ],
)
def test_stripes_package_is_only_imported_where_there_is_a_key(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program + TELL], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_key_of_stripe_is_no_part_of_what_settings_show(tmp_path: object) -> None:
    environ = {
        "ANTIPHON_HOME": str(tmp_path),
        "ANTIPHON_STRIPE_SECRET_KEY": "sk_test_secret",
        "ANTIPHON_STRIPE_WEBHOOK_SECRET": "whsec_secret",
    }
    settings = read_settings(environ)
    assert (settings.stripe_secret_key, settings.stripe_webhook_secret, settings.stripe_base_url) == (
        "sk_test_secret",
        "whsec_secret",
        None,
    )
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SECRET_KEY": "pk_live_abc"}, "ANTIPHON_STRIPE_SECRET_KEY: write a secret or restricted key"),
        ({"SECRET_KEY": "sk_live_a\nb"}, "ANTIPHON_STRIPE_SECRET_KEY: write a secret or restricted key"),
        ({"SECRET_KEY": "sk_test_a", "WEBHOOK_SECRET": "we_123"}, "ANTIPHON_STRIPE_WEBHOOK_SECRET: write"),
        ({"WEBHOOK_SECRET": "whsec_a"}, "of no use without ANTIPHON_STRIPE_SECRET_KEY"),
        ({"BASE_URL": "127.0.0.1:12111"}, "ANTIPHON_STRIPE_BASE_URL='127.0.0.1:12111': write an origin"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    tmp_path: object, environ: dict[str, str], words: str
) -> None:
    named = {f"ANTIPHON_STRIPE_{name}": value for name, value in environ.items()}
    with pytest.raises(SettingsError) as refusal:
        read_settings({"ANTIPHON_HOME": str(tmp_path), **named})
    assert words in str(refusal.value)
    assert "abc" not in str(refusal.value)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    """Our logs as the real processes write them."""
    stream, before = io.BytesIO(), structlog.get_config()
    text = io.TextIOWrapper(stream)
    monkeypatch.setattr(sys, "stderr", text)
    configure_logging("test")
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    assert not text.closed
    structlog.reset_defaults()
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


async def test_no_line_holds_a_secret_of_stripes(shop: Shop, lines: io.BytesIO) -> None:
    top_up = await shop.top_up()
    intent = shop.pay(top_up)
    await shop.stripe.deliveries.settled()
    await shop.stripe.control.deliver(shop.stripe.control.events()[-1]["id"], forged=True)
    shop.stripe.faults.add("server_error", times=99)
    assert (await shop.call("POST", "/v1/topups", json={"amount_usd": "5"})).status_code == 503
    shop.stripe.faults.clear()
    written = lines.getvalue().decode()
    assert "payments.unavailable" in written
    assert "payments.event_refused" in written
    secret = shop.stripe.account.payment_intents.get(intent)["client_secret"]
    for part in (shop.stripe.api_key, WEBHOOK_SECRET, secret, "4242", top_up["url"]):
        assert part not in written
