"""One Stripe account in test mode: every kind of resource, in memory."""

from dataclasses import dataclass
from typing import Any

from tests.providers.stripe.balance import BalanceTransactions
from tests.providers.stripe.charges import Charges
from tests.providers.stripe.checkout import Sessions
from tests.providers.stripe.collection import Collection, Json
from tests.providers.stripe.customers import Customers
from tests.providers.stripe.deliveries import Deliveries
from tests.providers.stripe.disputes import Disputes
from tests.providers.stripe.events import Events
from tests.providers.stripe.ids import Clock
from tests.providers.stripe.payment_intents import PaymentIntents
from tests.providers.stripe.payment_methods import PaymentMethods
from tests.providers.stripe.refunds import Refunds
from tests.providers.stripe.refusals import Refusal
from tests.providers.stripe.setup_intents import SetupIntents

DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Origin:
    """Which request made an event; neither is set for what happens by itself or in the dashboard."""

    id: str | None = None
    idempotency_key: str | None = None


class Account:
    """The resources, by kind, and what they share."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.url = ""  # under which people and programs reach the pages; set once the port is known
        self.origin = Origin()
        self.deliveries = Deliveries(self.clock)
        self.events = Events(self)
        self.customers = Customers(self)
        self.payment_methods = PaymentMethods(self)
        self.payment_intents = PaymentIntents(self)
        self.setup_intents = SetupIntents(self)
        self.sessions = Sessions(self)
        self.charges = Charges(self)
        self.refunds = Refunds(self)
        self.disputes = Disputes(self)
        self.balance = BalanceTransactions(self)
        self.kinds = {one.kind: one for one in vars(self).values() if isinstance(one, Collection)}
        self.clock.on_move(self.sessions.expire_due)
        self.clock.on_move(self.deliveries.queue_due)

    def expand(self, answer: Json, paths: list[str]) -> Json:
        """The answer with the objects in place of the ids that `expand[]` names."""
        for path in paths:
            steps = path.split(".")
            if len(steps) > DEEPEST:
                raise Refusal(
                    f"You cannot expand more than {DEEPEST} levels of a property: {path}", param="expand"
                )
            answer = self._expanded(answer, steps, path)
        return answer

    def check_expandable(self, home: Collection, path: str) -> None:
        """Refuse a path that `expand` would refuse, before there is an object."""
        kinds = [home.kind]
        for step in path.split("."):
            homes = [self.kinds[kind] for kind in kinds if kind in self.kinds]
            if step == "data":
                continue
            if not any(step in one.references | one.included for one in homes):
                raise Refusal(f"This property cannot be expanded ({path}).", param="expand[0]")
            named = [(one.references | one.included).get(step, "") for one in homes]
            kinds = [kind for names in named for kind in names.split("|")]

    def _expanded(self, node: Json, steps: list[str], path: str) -> Json:
        name, *rest = steps
        if node["object"] == "list" and name == "data" and rest:
            return node | {"data": [self._expanded(one, rest, path) for one in node["data"]]}
        home = self.kinds.get(node["object"])
        if home is None or name not in home.references | home.included:
            raise Refusal(f"This property cannot be expanded ({path}).", param="expand[0]")
        value = self._value(home, node, name)
        if rest and isinstance(value, dict):
            value = self._expanded(value, rest, path)
        return node | {name: value}

    def _value(self, home: Collection, node: Json, name: str) -> Any:
        if name in home.included:
            return node[name] if name in node else home.include(node, name)
        value = node.get(name)
        if not isinstance(value, str):
            return value
        kinds = home.references[name].split("|")
        return next((found for kind in kinds if (found := self.kinds[kind].find(value))), value)
