"""Money is exact: parsed, printed and multiplied in integers, rounded once and never down."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import billing
from billing.money import MAX_NANO, NANO_PER_USD

amounts = st.integers(-MAX_NANO, MAX_NANO)
milliseconds = st.integers(0, 10 * 3600 * 1000)
prices = st.integers(0, 10**12)
discounts = st.integers(0, 1_000_000)


@given(amounts)
def test_every_amount_reads_back_as_it_was_written(nano: int) -> None:
    assert billing.parse_usd(billing.format_usd(nano)) == nano


@given(amounts)
def test_amounts_are_written_with_nine_decimals_and_mean_the_same(nano: int) -> None:
    text = billing.format_usd(nano)
    assert len(text.partition(".")[2]) == 9
    assert Fraction(text) * NANO_PER_USD == nano


@given(st.text())
@example("٣")
@example("0\x85")
@example("1e3")
@example("0x1")
@example("1_000")
@example("inf")
@example("1.2.3")
def test_whatever_is_read_as_money_is_a_plain_decimal(text: str) -> None:
    try:
        nano = billing.parse_usd(text)
    except billing.MoneyFormatError as error:
        assert "USD" in str(error) or "ledger" in str(error)  # noqa: PT017 - both outcomes are allowed
    else:
        assert text.strip().isascii()
        assert Fraction(text.strip()) * NANO_PER_USD == nano


@pytest.mark.parametrize("text", ["", ".5", "5.", "1,5", "$1", "0.0000000001", "99999999999", "--1", "NaN"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(billing.MoneyFormatError):
        billing.parse_usd(text)


@pytest.mark.parametrize(
    ("text", "nano"),
    [("0.5", 500_000_000), ("0.00025", 250_000), ("5", 5_000_000_000), ("-1.000000001", -1_000_000_001)],
)
def test_amounts_are_nano_dollars(text: str, nano: int) -> None:
    assert billing.parse_usd(text) == nano


def test_thirty_seconds_of_the_sandbox_cost_what_the_contract_says() -> None:
    cost = billing.cost_nano(duration_ms=30_000, nano_per_second=billing.parse_usd("0.00025"))
    assert billing.format_usd(cost) == "0.007500000"


@pytest.mark.parametrize(
    ("usd_per_second", "seconds", "usd"),
    [
        ("0.00025", "240", "0.060000000"),
        ("0.001", "600", "0.600000000"),
        ("0.0003", "60", "0.018000000"),
        ("0.0006", "12.345", "0.007407000"),
        ("0.0002", "0.001", "0.000000200"),
        ("0.000000001", "0.001", "0.000000001"),
    ],
)
def test_the_price_list_is_exact(usd_per_second: str, seconds: str, usd: str) -> None:
    duration_ms = int(Fraction(seconds) * 1000)
    cost = billing.cost_nano(duration_ms=duration_ms, nano_per_second=billing.parse_usd(usd_per_second))
    assert billing.format_usd(cost) == usd


@given(milliseconds, prices, discounts)
def test_a_cost_is_rounded_up_once_and_by_less_than_a_nano(ms: int, price: int, ppm: int) -> None:
    exact = Fraction(ms * price * (1_000_000 - ppm), 1000 * 1_000_000)
    cost = billing.cost_nano(duration_ms=ms, nano_per_second=price, discount_ppm=ppm)
    assert exact <= cost < exact + 1


@given(milliseconds, milliseconds, prices, discounts)
def test_more_music_never_costs_less(one: int, other: int, price: int, ppm: int) -> None:
    costs = [
        billing.cost_nano(duration_ms=ms, nano_per_second=price, discount_ppm=ppm)
        for ms in sorted((one, other))
    ]
    assert costs == sorted(costs)


@given(st.integers(1, 10**9), st.sampled_from([8_000, 22_050, 44_100, 48_000, 96_000]))
def test_a_begun_millisecond_is_billed_and_no_more(frames: int, sample_rate: int) -> None:
    exact = Fraction(frames * 1000, sample_rate)
    assert exact <= billing.billed_ms(frames=frames, sample_rate=sample_rate) < exact + 1


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**10))
def test_division_rounds_towards_the_larger_number(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    assert exact <= billing.ceil_div(numerator, denominator) < exact + 1
