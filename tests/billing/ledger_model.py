"""The ledger as it is meant, in plain integers: no database, no batches, nothing of the product's code."""

import math
from fractions import Fraction
from typing import Final

import msgspec

TAKING: Final = ("payment_refund", "dispute")
GIVING: Final = ("dispute_won", "payment_refund_failed")
SPENT_FIRST: Final = ("promotional", "refund", "paid")


class Credit(msgspec.Struct):
    """One grant."""

    kind: str
    left: int
    days: int | None
    """Until it expires; at 0 it is over. None: never."""
    source: str = ""
    """The payment that it came from."""

    @property
    def is_over(self) -> bool:
        """Nothing for new holds any more."""
        return self.days is not None and self.days <= 0


class Purse(msgspec.Struct):
    """One customer's account."""

    posted: int = 0
    held: int = 0
    owed: int = 0
    overdraft: int = 0
    low: int = 0
    critical: int = 0
    level: int = 0
    credits: list[Credit] = msgspec.field(default_factory=list)
    """In the order in which they were given."""

    @property
    def lapsed(self) -> int:
        """Over, and not yet booked away."""
        return sum(credit.left for credit in self.credits if credit.is_over)

    @property
    def free(self) -> int:
        """What can be taken away."""
        return max(self.posted - self.held, 0)

    @property
    def available(self) -> int:
        """What can be held."""
        if self.owed:
            return 0
        return max(self.posted + self.overdraft - self.held - self.lapsed, 0)

    @property
    def next_expiry(self) -> int | None:
        """In days."""
        return min((c.days for c in self.credits if c.left and c.days is not None), default=None)

    def add(self, kind: str, amount: int, *, days: int | None = None, source: str = "") -> None:
        """What it pays off first is what was overdrawn."""
        left = min(amount, max(self.posted + amount, 0))
        self.posted += amount
        self.credits.append(Credit(kind, left, days, source))

    def spend(self, amount: int) -> None:
        """What is over goes last; of the rest, what expires first."""
        self.posted -= amount
        in_order = sorted(
            self.credits,
            key=lambda c: (c.is_over, math.inf if c.days is None else c.days, SPENT_FIRST.index(c.kind)),
        )
        _drain(in_order, amount)

    def give_back(self, amount: int, source: str) -> None:
        """First what that payment gave, then paid credit, gifts last."""
        self.posted -= amount
        in_order = sorted(
            self.credits,
            key=lambda c: (
                c.source != source,
                -SPENT_FIRST.index(c.kind),
                c.is_over,
                math.inf if c.days is None else c.days,
            ),
        )
        _drain(in_order, amount)

    def lose_what_is_over(self) -> int:
        """All of it that holds do not need."""
        amount = min(self.lapsed, self.free)
        self.posted -= amount
        _drain(sorted((c for c in self.credits if c.is_over), key=lambda c: c.days or 0), amount)
        return amount


class Cap(msgspec.Struct):
    """One budget."""

    limit: int
    alert: int | None
    spent: int = 0
    held: int = 0
    is_told: bool = False

    @property
    def available(self) -> int:
        """What can be held."""
        return self.limit - self.spent - self.held


class Caps(dict[tuple[str, str], Cap]):
    """All budgets, by subject, whose name begins with its purse, and period."""

    def put(self, subject: str, period: str, limit: int, alert: int | None = None) -> None:
        """What is spent and held under it stays."""
        cap = self.setdefault((subject, period), Cap(limit, alert))
        cap.limit, cap.alert, cap.is_told = limit, alert, False

    def lift(self, subject: str, period: str) -> bool:
        """Holds under it go on without it."""
        return self.pop((subject, period), None) is not None

    def of(self, *subjects: str) -> list[Cap]:
        """All that count for these."""
        return [cap for (subject, _), cap in self.items() if subject in subjects]

    def roll(self, purse: int) -> None:
        """The day and the month are over: what is charged from now on counts in the next ones."""
        for (subject, period), cap in self.items():
            if subject.startswith(f"{purse} ") and period != "total":
                cap.spent, cap.is_told = 0, False


class Kept(msgspec.Struct):
    """One hold, with the price of its birth."""

    purse: int
    amount: int
    nano_per_second: int
    discount_ppm: int
    caps: list[Cap]
    state: str = "open"
    cost: int = 0
    is_refunded: bool = False

    def due(self, frames: int, rate: int) -> int:
        """What so much music costs."""
        milliseconds = math.ceil(Fraction(frames * 1000, rate))
        price = Fraction(self.nano_per_second * (10**6 - self.discount_ppm), 10**9)
        return math.ceil(milliseconds * price)


class LedgerModel:
    """All accounts, ours included; every method is one committed step."""

    def __init__(self, purses: int) -> None:
        self.purses = [Purse() for _ in range(purses)]
        self.house = dict.fromkeys(
            (
                "revenue", "promo_expense", "variance", "stripe_clearing", "breakage", "receivable",
                "cogs_expense", "cogs_payable",
            ),
            0,
        )  # fmt: skip
        self.caps = Caps()
        self.booked: set[tuple[str, str]] = set()
        self.notices: list[tuple[int, str]] = []

    def grant(self, purse: int, amount: int, days: int | None) -> None:
        """A gift."""
        self.purses[purse].add("promotional", amount, days=days)
        self.house["promo_expense"] -= amount
        self._judge(purse)

    def receive(self, kind: str, purse: int, amount: int, ref: str) -> bool:
        """A payment, or something that the provider gives again; debts are paid from it first."""
        if (kind, ref) in self.booked:
            return False
        self.booked.add((kind, ref))
        debt = min(self.purses[purse].owed, amount)
        self.house["stripe_clearing"] -= amount
        self.house["receivable"] += debt
        if amount > debt:
            self.purses[purse].add("paid", amount - debt, source=ref if kind == "top_up" else "")
        self._judge(purse)
        self._owe(purse, -debt)
        return True

    def take_back(self, kind: str, purse: int, amount: int, ref: str, payment: str) -> bool:
        """A refund or a dispute; what is not free is owed."""
        if (kind, ref) in self.booked:
            return False
        self.booked.add((kind, ref))
        taken = min(amount, self.purses[purse].free)
        self.purses[purse].give_back(taken, payment)
        self.house["stripe_clearing"] += amount
        self.house["receivable"] -= amount - taken
        self._judge(purse)
        if kind == "dispute":
            self.notices.append((purse, "dispute.opened"))
        self._owe(purse, amount - taken)
        return True

    def fits(self, purse: int, amount: int, caps: list[Cap]) -> bool:
        """Whether it can be held."""
        return all(amount <= place.available for place in (self.purses[purse], *caps))

    def hold(self, kept: Kept) -> None:
        """It fits."""
        for place in (self.purses[kept.purse], *kept.caps):
            place.held += kept.amount
        self._alert(kept.purse, kept.caps)

    def settle(self, delivered: list[tuple[Kept, int]], undelivered: list[Kept]) -> list[int]:
        """Charge each its due, at most what is held; give back the others. Returns what each cost."""
        costs = [min(due, kept.amount) for kept, due in delivered]
        for kept, cost in [*zip((kept for kept, _ in delivered), costs, strict=True)]:
            self._end(kept, "settled", cost)
        for kept in undelivered:
            self._end(kept, "released", 0)
        for (kept, due), cost in zip(delivered, costs, strict=True):
            self.purses[kept.purse].spend(cost)
            self.house["revenue"] += due
            self.house["variance"] -= due - cost
        if delivered:
            for purse in {kept.purse for kept in [*(kept for kept, _ in delivered), *undelivered]}:
                self._judge(purse)
        for kept in [*(kept for kept, _ in delivered), *undelivered]:
            self._alert(kept.purse, kept.caps)
        return costs

    def refund_usage(self, kept: Kept) -> bool:
        """Once, what was charged."""
        if not kept.cost or kept.is_refunded:
            return False
        kept.is_refunded = True
        self.purses[kept.purse].add("refund", kept.cost)
        self.house["revenue"] -= kept.cost
        self._judge(kept.purse)
        return True

    def sweep(self) -> int:
        """How many lost something."""
        lost = [purse.lose_what_is_over() for purse in self.purses]
        self.house["breakage"] += sum(lost)
        return self._judge_those(lost)

    def collect(self) -> int:
        """How many paid something of what they owe."""
        paid = [min(purse.owed, purse.free) for purse in self.purses]
        for purse, amount in zip(self.purses, paid, strict=True):
            purse.spend(amount)
        self.house["receivable"] += sum(paid)
        count = self._judge_those(paid)
        for n, amount in enumerate(paid):
            self._owe(n, -amount)
        return count

    def cost(self, ref: str, amount: int) -> None:
        """What a provider charges for an attempt, once."""
        if amount and ("provider_cost", ref) not in self.booked:
            self.booked.add(("provider_cost", ref))
            self.house["cogs_expense"] -= amount
            self.house["cogs_payable"] += amount

    def let_days_pass(self, purse: int, days: int) -> None:
        """What is given for a time has less of it."""
        for credit in self.purses[purse].credits:
            credit.days = None if credit.days is None else credit.days - days

    def set_thresholds(self, purse: int, low: int, critical: int) -> None:
        """A lower one has not been told of."""
        its = self.purses[purse]
        its.low, its.critical = low, critical
        its.level = min(its.level, _level(its))

    def _end(self, kept: Kept, state: str, cost: int) -> None:
        kept.state, kept.cost = state, cost
        self.purses[kept.purse].held -= kept.amount
        for cap in kept.caps:
            cap.held -= kept.amount
            cap.spent += cost

    def _owe(self, purse: int, change: int) -> None:
        its = self.purses[purse]
        if change:
            self.notices += [(purse, "account.frozen")] if not its.owed else []
            its.owed += change
            self.notices += [(purse, "account.unfrozen")] if not its.owed else []

    def _judge_those(self, amounts: list[int]) -> int:
        concerned = [n for n, amount in enumerate(amounts) if amount]
        for n in concerned:
            self._judge(n)
        return len(concerned)

    def _judge(self, purse: int) -> None:
        its = self.purses[purse]
        now = _level(its)
        self.notices += [(purse, f"balance.{('low', 'critical')[n]}") for n in range(its.level, now)]
        its.level = now

    def _alert(self, purse: int, caps: list[Cap]) -> None:
        """A cap that was lifted meanwhile is nobody's."""
        for cap in caps:
            known = any(cap is one for one in self.caps.values())
            if known and cap.alert is not None and cap.spent >= cap.alert and not cap.is_told:
                cap.is_told = True
                self.notices.append((purse, "budget.alert"))


def _level(purse: Purse) -> int:
    return (purse.posted < purse.low) + (purse.posted < purse.critical)


def _drain(in_order: list[Credit], amount: int) -> None:
    for credit in in_order:
        taken = min(credit.left, amount)
        credit.left -= taken
        amount -= taken
