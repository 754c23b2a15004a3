"""Queries and paths of the money's pages that nobody means well with."""

import pytest

from tests.gateway.api.installation import Customer

PARAMETERS = {
    "/v1/usage": ("start", "end", "group_by", "model", "key", "project", "limit", "cursor", "format"),
    "/v1/account/usage": ("limit", "before", "from", "to", "model", "status", "source"),
    "/v1/ledger": ("limit", "cursor", "order", "start", "end", "kind", "format"),
    "/v1/statements": ("limit", "cursor"),
}
VALUES = (
    *("", "%00", "a%00b", "%ff%fe", "%ed%a0%80", "%F0%9F%8E%B5", "9" * 400, "x" * 5_000, "-1", "NaN", "1e3"),
    *("0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00", "99999999999999999999", "%D9%A3", "null"),
    *("day,day,hour,key", "1970-01", "9999-12", "csv", "9223372036854775807", "0", "'%20OR%201=1"),
)
PATHS = ("2026-11%00", "%ff", "..%2f..", "%D9%A3" * 4, "9" * 5_000, "%20", "2026%2D11", "{}")


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in PARAMETERS.items() for name in names]
)
async def test_no_query_breaks_a_report(customer: Customer, path: str, name: str) -> None:
    for value in VALUES:
        for more in ("", "&format=csv"):
            answer = await customer.http.get(f"{path}?{name}={value}{more}", headers=customer.headers())
            assert answer.status_code in {200, 400}, (value, answer.text)
            if answer.status_code == 400:
                assert answer.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("tail", PATHS)
async def test_no_path_breaks_the_statements(customer: Customer, tail: str) -> None:
    for path in (f"/v1/statements/{tail}", f"/statements/{tail}/2026-11", f"/statements/{'0' * 32}/{tail}"):
        answer = await customer.http.get(path, headers=customer.headers())
        assert answer.status_code in {200, 400, 403, 404}, (path, answer.text)
        assert (answer.status_code == 200) <= (tail == "2026%2D11")
