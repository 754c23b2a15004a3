"""Idempotency keys: one request, one answer, for a day."""

from dataclasses import dataclass

from tests.providers.stripe.forms import Tree
from tests.providers.stripe.ids import Clock
from tests.providers.stripe.refusals import Refusal, key_in_use, other_body, other_endpoint

KEPT_S = 24 * 3600
LONGEST = 255


@dataclass(slots=True)
class Kept:
    """The first request of a key, and its answer once there is one."""

    endpoint: str
    form: Tree
    at: int
    request_id: str
    status: int = 0
    answer: bytes = b""


class IdempotencyKeys:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, Kept] = {}

    def begin(self, key: str, endpoint: str, form: Tree, request_id: str) -> Kept | None:
        """The answer to replay, or nothing: then the key is this request's until `finish` or `forget`."""
        if len(key) > LONGEST:
            raise Refusal(f"Idempotency keys may be at most {LONGEST} characters long.")
        kept = self._kept.get(key)
        if kept is None or kept.at + KEPT_S <= self._clock.now():
            self._kept[key] = Kept(endpoint, form, self._clock.now(), request_id)
            return None
        if kept.endpoint != endpoint:
            raise other_endpoint(key, kept.endpoint, endpoint)
        if kept.form != form:
            raise other_body(key)
        if not kept.status:
            raise key_in_use(key)
        return kept

    def finish(self, key: str | None, status: int, answer: bytes) -> None:
        """The endpoint answered: that is the answer of this key, an error too."""
        if key:
            self._kept[key].status = status
            self._kept[key].answer = answer

    def forget(self, key: str | None) -> None:
        """Nothing was done under this key: it may be used again."""
        if key:
            self._kept.pop(key, None)
