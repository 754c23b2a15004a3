"""An index on ids is an index on time."""

from datetime import UTC, datetime, timedelta

from gateway.ids import first_id, new_id


def test_the_first_id_of_a_moment_lies_between_older_and_newer_ones() -> None:
    older = new_id()
    now = datetime.now(UTC)
    assert first_id(now) <= new_id()
    assert first_id(now - timedelta(seconds=1)) < older < first_id(now + timedelta(seconds=1))


def test_the_first_id_of_a_moment_before_all_ids_is_the_smallest() -> None:
    assert first_id(datetime(1900, 1, 1, tzinfo=UTC)).int == 0
