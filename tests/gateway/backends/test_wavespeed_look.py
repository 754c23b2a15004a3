"""What WaveSpeed tells of tasks: each end in our words, many tasks in few requests, lies believed never."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from gateway.backends.base import BackendUnavailable, Failed, Output, Reason
from gateway.backends.remote.provider import Made, Unknown, Waiting
from gateway.backends.wavespeed import looking
from gateway.backends.wavespeed.outcomes import sight
from gateway.backends.wavespeed.wire import Prediction
from gateway.generation import SAMPLE_RATE
from gateway.jobs.job import JobErrorCode
from tests.gateway.backends.wavespeed_account import MODEL, Account, call
from tests.providers.wavespeed import Cut, Drop, Huge, Odd, Outputs, Raw, Status, TaskFails


async def send_many(account: Account, count: int) -> list[str]:
    return [await account.provider.send(call(seed=1000 + number)) for number in range(count)]


def asked_since(account: Account) -> list[str]:
    return [one.kind for one in account.vendor.requests]


async def seen(account: Account, ref: str) -> Any:
    return (await account.provider.look([ref]))[ref]


async def test_a_task_waits_until_it_is_made_and_says_for_which_request(account: Account) -> None:
    ref = await account.provider.send(call(first=2, n=3, frames=round(30.5 * SAMPLE_RATE)))
    assert await seen(account, ref) == Waiting()
    account.vendor.complete(ref)
    url = f"{account.vendor.url}/outputs/{ref}.mp3"
    assert await seen(account, ref) == Made(outputs=(Output(url=url),), asked_seed=9)


async def test_what_the_vendor_does_not_repeat_is_not_made_up() -> None:
    plain = Prediction(id="a", model=MODEL, status="completed", outputs=["https://cdn.example/a.mp3"])
    assert sight(plain) == Made(outputs=(Output(url="https://cdn.example/a.mp3"),))


@pytest.mark.parametrize(
    ("outcome", "code", "retryable"),
    [
        (TaskFails(1200, "nsfw"), JobErrorCode.CONTENT_POLICY_VIOLATION, False),
        (TaskFails(1299, "nsfw"), JobErrorCode.CONTENT_POLICY_VIOLATION, False),
        (TaskFails(1400), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(1401), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(1402), JobErrorCode.INPUT_UNREADABLE, True),
        (TaskFails(1403), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(1405), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(5000), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(5003), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(5004), JobErrorCode.TIMEOUT, True),
        (TaskFails(0), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(0, status="cancelled"), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(0, status="deleted"), JobErrorCode.UPSTREAM_ERROR, True),
        (TaskFails(0, status="timeout"), JobErrorCode.TIMEOUT, True),
    ],
    ids=lambda value: f"{value.code}-{value.status}" if isinstance(value, TaskFails) else None,
)
async def test_a_failed_task_is_free_and_told_in_our_words(
    account: Account, outcome: TaskFails, code: JobErrorCode, *, retryable: bool
) -> None:
    account.vendor.fail_next("submit", TaskFails(outcome.code, "raw words of the vendor", outcome.status))
    ref = await account.provider.send(call())
    account.vendor.accounts[account.vendor.key].end(account.vendor.predictions[ref])
    failed = await seen(account, ref)
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable, failed.cost_nano) == (code, retryable, 0)
    assert "vendor" not in failed.message


@pytest.mark.parametrize(
    "outputs", [None, [], [""], [5], ["file:///etc/passwd"], ["https://"], ["https://a/\n"]]
)
async def test_a_task_that_completes_without_a_file_has_failed(outputs: list[Any] | None) -> None:
    failed = sight(Prediction(id="a", status="completed", outputs=outputs))
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable, failed.cost_nano) == (JobErrorCode.UPSTREAM_ERROR, True, None)


async def test_a_word_that_nobody_knows_is_waited_for() -> None:
    assert sight(Prediction(id="a", status="pondering")) == Waiting()


async def test_what_is_gone_or_was_never_there_is_unknown(account: Account) -> None:
    ref = await account.provider.send(call())
    await account.provider.stop(ref)
    assert account.vendor.predictions[ref].deleted
    stranger = "0" * 32
    assert await account.provider.look([ref, stranger]) == {ref: Unknown(), stranger: Unknown()}


@pytest.mark.parametrize(
    "fault", [Status(401), Status(429), Status(500), Drop(), Raw(), Odd("deep"), Huge()], ids=repr
)
async def test_stop_never_raises(account: Account, fault: Any) -> None:
    ref = await account.provider.send(call())
    account.vendor.fail_next("delete", fault)
    await account.provider.stop(ref)
    assert await seen(account, ref) in (Waiting(), Unknown())


async def test_no_id_leads_to_another_path(account: Account) -> None:
    hostile = ["../balance", "a/b", "", "a" * 200, "a?b", "..", "%2e%2e"]
    assert await account.provider.look(hostile) == {}
    for ref in hostile:
        await account.provider.stop(ref)
    assert account.vendor.requests == []


@pytest.mark.parametrize(
    ("fault", "reason", "seconds"),
    [
        (Status(401), Reason.MISCONFIGURED, None),
        (Status(402), Reason.NO_CREDIT, None),
        (Status(403), Reason.MISCONFIGURED, None),
        (Status(429, retry_after=9), Reason.RATE_LIMITED, 9.0),
        (Status(500), Reason.OUTAGE, None),
        (Status(503, retry_after=4), Reason.OUTAGE, 4.0),
        (Status(302, location="http://169.254.169.254/"), Reason.MISCONFIGURED, None),
        (Drop(), Reason.OUTAGE, None),
        (Cut(), Reason.OUTAGE, None),
        (Raw(), Reason.OUTAGE, None),
        (Raw(b'{"code":200,"data":{"id":"\xff"}}'), Reason.OUTAGE, None),
        (Huge(bytes_count=1_000_000_000), Reason.OUTAGE, None),
        *(
            (Odd(kind), Reason.OUTAGE, None)
            for kind in (
                "nulls", "wrong_types", "deep", "bare", "no_data", "no_id", "list", "infinite",
                "foreign_id", "path_in_id", "long_id",
            )
        ),
    ],
    ids=repr,
)  # fmt: skip
async def test_an_answer_that_tells_nothing_changes_nothing(
    account: Account, fault: Any, reason: Reason, seconds: float | None
) -> None:
    ref = await account.provider.send(call())
    account.vendor.complete(ref)
    account.vendor.fail_next("poll", fault)
    with pytest.raises(BackendUnavailable) as silent:
        await account.provider.look([ref])
    assert (silent.value.reason, silent.value.retry_after_seconds) == (reason, seconds)
    assert isinstance(await seen(account, ref), Made)


async def test_odd_outputs_are_no_music(account: Account) -> None:
    ref = await account.provider.send(call())
    account.vendor.fail_next("poll", Odd("odd_outputs"))
    assert isinstance(await seen(account, ref), Failed)


async def test_a_completed_task_without_outputs_has_failed_over_the_wire(account: Account) -> None:
    account.vendor.fail_next("submit", Outputs("empty"))
    ref = await account.provider.send(call())
    account.vendor.complete(ref)
    assert isinstance(await seen(account, ref), Failed)


async def test_one_bad_answer_hides_no_other(account: Account) -> None:
    refs = await send_many(account, 3)
    account.vendor.fail_next("poll", Raw())
    assert sorted((await account.provider.look(refs)).values(), key=repr) == [Waiting(), Waiting()]


async def test_a_rate_limit_ends_a_look(account: Account) -> None:
    refs = await send_many(account, 20)
    account.vendor.requests.clear()
    account.vendor.fail_next("poll", Status(429, retry_after=5), times=None)
    with pytest.raises(BackendUnavailable) as silent:
        await account.provider.look(refs)
    assert silent.value.retry_after_seconds == 5.0
    assert account.vendor.polls <= 8


def stock(account: Account, count: int) -> list[str]:
    """Tasks that are under way there, without the trouble of sending each."""
    first = next(iter(account.vendor.predictions.values())).asked
    booked = account.vendor.accounts[account.vendor.key]
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    made = [
        booked.accept(
            type(first)(**{**fields, "input": {**first.input, "seed": seed}, "seed": seed}),
            account.vendor.url,
            outcome=None,
            outputs=None,
        )
        for seed in range(5000, 5000 + count)
    ]
    for one in made:
        one.status = "processing"
    return [one.id for one in made]


async def many(account: Account, count: int) -> Sequence[str]:
    refs = [await account.provider.send(call()), *stock(account, count - 1)]
    account.vendor.requests.clear()
    return refs


async def test_many_tasks_are_looked_at_by_pages_of_the_list(account: Account) -> None:
    refs = await many(account, 950)
    assert await account.provider.look(refs) == dict.fromkeys(refs, Waiting())
    assert asked_since(account) == ["list"] * 10


async def test_the_list_tells_what_is_made_and_each_failure_is_asked_for(account: Account) -> None:
    refs = await many(account, 60)
    for ref in refs[:10]:
        account.vendor.complete(ref)
    account.vendor.fail(refs[10], TaskFails(1200, "nsfw"))
    await account.provider.stop(refs[11])
    account.vendor.requests.clear()
    states = await account.provider.look(refs)
    assert [type(states[ref]) for ref in refs] == [Made] * 10 + [Failed, Unknown] + [Waiting] * 48
    assert [one.asked_seed for one in states.values() if isinstance(one, Made)].count(7) == 1
    failed = states[refs[10]]
    assert isinstance(failed, Failed)
    assert failed.code is JobErrorCode.CONTENT_POLICY_VIOLATION
    assert account.vendor.polls <= 2


async def test_a_list_that_repeats_no_request_tells_states_all_the_same(account: Account) -> None:
    refs = await many(account, 30)
    items = [
        {
            "id": ref,
            "model": MODEL,
            "status": "completed",
            "outputs": [f"https://cdn.example/{ref}"],
            "error": "",
        }
        for ref in refs
    ]
    page = msgspec.json.encode({"code": 200, "message": "success", "data": {"page": 1, "items": items}})
    account.vendor.fail_next("list", Raw(page))
    states = await account.provider.look(refs)
    assert states == {ref: Made(outputs=(Output(url=f"https://cdn.example/{ref}"),)) for ref in refs}
    assert asked_since(account) == ["list"]


async def test_tasks_of_others_do_not_make_the_list_long(account: Account) -> None:
    refs = await many(account, 30)
    stock(account, 1000)
    assert await account.provider.look(refs) == dict.fromkeys(refs, Waiting())
    assert sorted(asked_since(account)) == ["list"] + ["poll"] * 30


@pytest.mark.parametrize(
    "fault", [Status(404), Status(500), Drop(), Raw(), Odd("deep"), Odd("wrong_types")], ids=repr
)
async def test_without_the_list_each_task_is_asked_for(account: Account, fault: Any) -> None:
    refs = await many(account, 25)
    account.vendor.fail_next("list", fault)
    assert await account.provider.look(refs) == dict.fromkeys(refs, Waiting())


async def test_a_page_that_is_spoiled_in_parts_tells_the_rest(account: Account) -> None:
    refs = await many(account, 21)
    for kind in ("nulls", "no_id", "path_in_id", "long_id", "foreign_id", "infinite"):
        account.vendor.fail_next("list", Odd(kind))  # type: ignore[arg-type]
        assert await account.provider.look(refs) == dict.fromkeys(refs, Waiting())


async def test_without_the_list_a_look_is_bounded_and_chance_is_fair(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "MOST_SINGLES", 6)
    refs = await many(account, 30)
    account.vendor.fail_next("list", Status(500), times=None)
    looks = [set(await account.provider.look(refs)) for _ in range(2)]
    assert [len(one) for one in looks] == [6, 6]
    assert looks[0] != looks[1]  # once in half a million


async def test_a_list_that_is_rate_limited_ends_the_look(account: Account) -> None:
    refs = await many(account, 30)
    account.vendor.fail_next("list", Status(429, retry_after=2))
    with pytest.raises(BackendUnavailable) as silent:
        await account.provider.look(refs)
    assert silent.value.retry_after_seconds == 2.0
    assert asked_since(account) == ["list"]


async def test_the_balance_is_exact(account: Account) -> None:
    account.vendor.balance_nano = 12_345_678_901
    assert await account.provider.balance_nano() == 12_345_678_901
    account.vendor.fail_next("balance", Status(404))
    assert await account.provider.balance_nano() == 12_345_678_901
    account.vendor.fail_next("balance", Raw(b'{"code":200,"data":{"balance":0.1}}'))
    assert await account.provider.balance_nano() == 100_000_000
    account.vendor.fail_next("balance", Raw(b'{"code":200,"data":{"balance":-2.5}}'))
    assert await account.provider.balance_nano() == -2_500_000_000


@pytest.mark.parametrize(
    "number", ["1000000000", "1e999", "1e400000000", "NaN", '"NaN"', '"Infinity"', "true", "null", "[]"]
)
async def test_a_balance_that_is_no_amount_is_none(account: Account, number: str) -> None:
    account.vendor.fail_next("balance", Raw(f'{{"code":200,"data":{{"balance":{number}}}}}'.encode()))
    with pytest.raises(BackendUnavailable):
        await account.provider.balance_nano()


async def test_a_balance_that_is_refused_says_why(account: Account) -> None:
    account.vendor.fail_next("balance", Status(401))
    with pytest.raises(BackendUnavailable) as refused:
        await account.provider.balance_nano()
    assert refused.value.reason is Reason.MISCONFIGURED


async def test_no_text_of_an_error_holds_the_key(account: Account) -> None:
    for fault in (Status(401), Drop(), Raw()):
        account.vendor.fail_next("poll", fault)
        with pytest.raises(BackendUnavailable) as refused:
            await account.provider.look(["a"])
        error: BaseException | None = refused.value
        while error is not None:
            assert account.vendor.key not in f"{error!r}{error}"
            error = error.__cause__
    assert account.vendor.key not in repr(account.provider)
