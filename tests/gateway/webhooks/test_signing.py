"""Signatures as the specification's own library verifies them, and the secrets that nobody stores."""

import base64
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from gateway.webhooks.signing import Secret, Secrets, signed_headers
from tests.factories import SECRET_KEY

OWNER = uuid.UUID(int=7)
BODY = '{"type":"job.completed","data":{"prompt":"Ein schönes Lied 🎵"}}'.encode()
SECRETS = Secrets(SECRET_KEY)


def headers(values: list[str], *, age: timedelta = timedelta()) -> dict[str, str]:
    return signed_headers(values, webhook_id="msg_1", at=datetime.now(UTC) - age, body=BODY)


def test_the_specifications_own_library_verifies_what_is_sent() -> None:
    value = SECRETS.value(OWNER, 1)
    assert Webhook(value).verify(BODY, headers([value]))["type"] == "job.completed"


def test_a_changed_body_id_or_time_is_not_verified() -> None:
    value = SECRETS.value(OWNER, 1)
    for changed in ({"webhook-id": "msg_2"}, {"webhook-timestamp": "1700000000"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(value).verify(BODY, headers([value]) | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(value).verify(BODY + b" ", headers([value]))


def test_an_old_message_is_not_verified() -> None:
    value = SECRETS.value(OWNER, 1)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(value).verify(BODY, headers([value], age=timedelta(minutes=6)))


def test_after_a_rotation_the_new_and_the_last_secret_verify_and_no_other() -> None:
    sent = headers(SECRETS.valid(OWNER, 3, with_old=True))
    for version in (3, 2):
        Webhook(SECRETS.value(OWNER, version)).verify(BODY, sent)
    for version in (1, 4):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRETS.value(OWNER, version)).verify(BODY, sent)


def test_without_a_rotation_there_is_one_signature() -> None:
    assert SECRETS.valid(OWNER, 2, with_old=False) == [SECRETS.value(OWNER, 2)]
    assert SECRETS.valid(OWNER, 1, with_old=True) == [SECRETS.value(OWNER, 1)]


def test_a_secret_is_32_bytes_that_follow_from_installation_owner_and_version() -> None:
    value = SECRETS.value(OWNER, 1)
    assert value.startswith("whsec_")
    assert len(base64.b64decode(value.removeprefix("whsec_"), validate=True)) == 32
    assert Secrets(SECRET_KEY).value(OWNER, 1) == value
    others = {
        SECRETS.value(uuid.UUID(int=8), 1),
        SECRETS.value(OWNER, 2),
        Secrets(SECRET_KEY + "!").value(OWNER, 1),
    }
    assert len(others | {value}) == 4


def test_a_secret_does_not_show_in_its_repr() -> None:
    value = SECRETS.value(OWNER, 1)
    assert value not in repr(Secret(value=value, version=1, old_until=None))
    assert value not in str(Secret(value=value, version=1, old_until=None))
