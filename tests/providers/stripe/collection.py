"""What every kind of resource has: objects by id in the order of their making, pages of them, operations."""

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tests.providers.stripe.ids import new_id
from tests.providers.stripe.refusals import Refusal, missing_object

if TYPE_CHECKING:
    from tests.providers.stripe.account import Account

Json = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., dict[str, Any]])
PAGE = 10
LONGEST_PAGE = 100
BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "gt": lambda created, bound: created > bound,
    "gte": lambda created, bound: created >= bound,
    "lt": lambda created, bound: created < bound,
    "lte": lambda created, bound: created <= bound,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read: the id of its path, its parameters with their types, what to show in full."""

    id: str = ""
    params: Json = field(default_factory=dict)
    expand: list[str] = field(default_factory=list)

    def get(self, name: str, default: Any = None) -> Any:
        return self.params.get(name, default)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method and path of the API, Stripe's description of its parameters, and those that we act on."""

    method: str
    path: str
    description: type
    acts_on: tuple[str, ...]


def operation(route: str, description: type, acts_on: str = "") -> Callable[[Handler], Handler]:
    method, path = route.split()

    def mark(handler: Handler) -> Handler:
        handler.operation = Operation(method, path, description, tuple(acts_on.split()))  # type: ignore[attr-defined]
        return handler

    return mark


class Collection:
    """The objects of one kind."""

    kind: str
    prefix: str
    references: dict[str, str] = {}  # a field that holds an id, and the kind of what it names: `expand[]`
    lacks: tuple[str, ...] = ()  # which of the common fields it has not
    included: dict[str, str] = {}  # fields that are there only when `expand[]` asks, and the kind in them

    def __init__(self, account: "Account") -> None:
        self.account = account
        self._objects: dict[str, Json] = {}
        self._order: list[tuple[int, int, str]] = []

    def operations(self) -> Iterator[tuple[Operation, Callable[[Call], Json]]]:
        for name in dir(self):
            handler = getattr(self, name)
            if hasattr(handler, "operation"):
                yield handler.operation, handler

    def add(self, fields: Json, id: str | None = None) -> Json:  # noqa: A002 - an API's id
        """A new object: the common fields, then its own."""
        made = {"id": id or new_id(self.prefix), "object": self.kind, "created": self.account.clock.now()}
        common = {"livemode": False, "metadata": {}}
        made |= {name: value for name, value in common.items() if name not in self.lacks} | fields
        self._objects[made["id"]] = made
        insort(self._order, (made["created"], len(self._order), made["id"]))
        return made

    def find(self, id: str) -> Json | None:  # noqa: A002 - an API's id
        return self._objects.get(id)

    def get(self, id: str, param: str | None = None) -> Json:  # noqa: A002 - an API's id
        found = self.find(id)
        if found is None:
            raise missing_object(self.kind, id, param)
        return found

    def newest_first(self) -> Iterator[Json]:
        return (self._objects[id_] for _, _, id_ in reversed(self._order))

    def where(self, **fields: Any) -> list[Json]:
        return [
            found
            for found in self.newest_first()
            if all(found.get(name) == value for name, value in fields.items())
        ]

    def include(self, found: Json, name: str) -> Any:
        """The value of a field that is there only when asked for."""
        raise NotImplementedError(name)

    def page(self, call: Call, url: str, *filters: str) -> Json:
        """A list object: newest first, filtered by equal fields and `created`, from a cursor on."""
        limit = _limit(call.get("limit", PAGE))
        wanted = {name: call.params[name] for name in filters if name in call.params}
        found = [one for one in self.where(**wanted) if _within(one["created"], call.get("created"))]
        if "starting_after" in call.params:
            found = found[self._place(found, call.params["starting_after"], "starting_after") + 1 :]
        elif "ending_before" in call.params:
            found = found[: self._place(found, call.params["ending_before"], "ending_before")]
            return as_list(found[-limit:], url, has_more=len(found) > limit)
        return as_list(found[:limit], url, has_more=len(found) > limit)

    def _place(self, found: list[Json], cursor: str, param: str) -> int:
        self.get(cursor, param)
        return next((place for place, one in enumerate(found) if one["id"] == cursor), len(found))

    def set_metadata(self, found: Json, call: Call) -> None:
        """As Stripe merges: keys are added, an empty value removes one, an empty hash removes all."""
        if "metadata" in call.params:
            found["metadata"] = merged(found["metadata"], call.params["metadata"])


def merged(before: dict[str, str], given: dict[str, str] | None) -> dict[str, str]:
    if given is None:
        return {}
    return {name: value for name, value in (before | given).items() if value != ""}


def change(found: Json, **fields: Any) -> Json:
    """Set fields, and say what those that changed were before: an event's `previous_attributes`."""
    before = {name: found.get(name) for name, value in fields.items() if found.get(name) != value}
    found.update(fields)
    return before


def as_list(data: list[Json], url: str, *, has_more: bool = False) -> Json:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def _limit(limit: int) -> int:
    if not 1 <= limit <= LONGEST_PAGE:
        word, bound = ("greater", 1) if limit < 1 else ("less", LONGEST_PAGE)
        raise Refusal(
            f"This value must be {word} than or equal to {bound} (it currently is '{limit}').",
            code="parameter_invalid_integer",
            param="limit",
        )
    return limit


def _within(created: int, bounds: dict[str, int] | int | None) -> bool:
    if bounds is None:
        return True
    if isinstance(bounds, int):
        return created == bounds
    return all(BOUNDS[name](created, bound) for name, bound in bounds.items())
