"""What a key may do: until when, from where, and with which models."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.auth.principal import Principal, Scope
from gateway.errors import InvalidApiKey, ModelNotAllowed, ScopeDenied

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def principal(**limits: Any) -> Principal:
    return Principal(key_id=uuid.uuid4(), organization_id=uuid.uuid4(), project_id=None, test=False, **limits)


def test_a_key_without_limits_may_do_everything() -> None:
    caller = principal()
    caller.check_usable(now=NOW, client_host=None)
    caller.check_model("anything")
    for scope in Scope:
        caller.check_scope(scope)


def test_a_key_expires_at_its_moment() -> None:
    caller = principal(expires_at=NOW)
    caller.check_usable(now=NOW - timedelta(microseconds=1), client_host=None)
    for late in (timedelta(), timedelta(days=1)):
        with pytest.raises(InvalidApiKey):
            caller.check_usable(now=NOW + late, client_host=None)


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.1.2.3", True),
        ("10.2.0.0", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:a01:203", True),
        ("::ffff:11.1.2.3", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("192.0.2.7", True),
        ("::10.1.2.3", False),
        ("localhost", False),
        ("10.1.2.3:80", False),
        ("", False),
        (None, False),
    ],
)
def test_a_key_works_only_from_its_networks(host: str | None, *, inside: bool) -> None:
    caller = principal(cidrs=("10.1.0.0/16", "2001:db8::/32", "192.0.2.7"))
    if inside:
        caller.check_usable(now=NOW, client_host=host)
    else:
        with pytest.raises(InvalidApiKey):
            caller.check_usable(now=NOW, client_host=host)


def test_a_key_without_any_network_works_from_nowhere() -> None:
    with pytest.raises(InvalidApiKey):
        principal(cidrs=()).check_usable(now=NOW, client_host="10.1.2.3")


@pytest.mark.parametrize("scopes", [frozenset({"generate"}), frozenset({"read"}), frozenset()])
def test_a_key_has_the_scopes_it_was_given_and_no_other(scopes: frozenset[str]) -> None:
    caller = principal(scopes=scopes)
    for scope in Scope:
        if scope in scopes:
            caller.check_scope(scope)
        else:
            with pytest.raises(ScopeDenied, match=scope.value):
                caller.check_scope(scope)


def test_a_key_for_some_models_names_one_that_it_may_use() -> None:
    caller = principal(models=frozenset({"sandbox", "ace-step"}))
    caller.check_model("sandbox")
    with pytest.raises(ModelNotAllowed) as refusal:
        caller.check_model("other")
    assert (refusal.value.param, refusal.value.suggestion) == ("model", "ace-step")
