"""Write docs/errors.md from the error classes: `python docs/generate_errors.py`; `--check` only compares."""

# ruff: noqa: INP001 - a script beside files that are no Python
import sys
from typing import Final

from generated_page import ROOT, table, write_or_check

from gateway.errors import ClientError, GatewayError, raised_errors
from gateway.jobs.job import MEANINGS, JobErrorCode

PAGE: Final = ROOT / "docs" / "errors.md"
HEAD: Final = """\
# Errors

<!-- Made by docs/generate_errors.py from gateway/errors.py and gateway/jobs/job.py. Do not edit by hand. -->

Every refusal has this body, and `x-request-id` in its headers:

```json
{"error": {"message": "there is no parameter 'promt'; did you mean 'prompt'?",
           "type": "invalid_request_error", "param": "promt", "code": "unknown_parameter",
           "suggestion": "prompt", "charged": false, "retryable": false,
           "request_id": "req_1e8d00e4bc85763df364b11c",
           "doc_url": "/docs/errors#unknown_parameter"}}
```

* `code` is stable and for programs; `message` is for people and may change.
* `param` names the field, `suggestion` the nearest valid value; both may be null.
* `charged` is always false: a refusal costs nothing, and nothing stays reserved.
* Where `retryable` is false the header `x-should-retry: false` stops clients that would try again by
  themselves. Where it is true, wait as long as `Retry-After` says if it is there.
* 402 carries `required_usd` and `available_usd` as well.

A running gateway shows its codes at `/docs/errors`; `doc_url` points there.

## Answers to a request
"""
ANSWER_COLUMNS: Final = ("code", "HTTP", "type", "retry", "meaning")
JOBS: Final = """
## In a job

A job that was accepted and ends without music is `failed` and has `error.code`. It is never charged.

"""


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds the page out of date."""
    return write_or_check(PAGE, render, arguments)


def render() -> str:
    """The whole page."""
    kinds = raised_errors()
    theirs = [row(kind) for kind in kinds if issubclass(kind, ClientError)]
    ours = [row(kind) for kind in kinds if not issubclass(kind, ClientError)]
    jobs = [(f"`{code}`", MEANINGS[code]) for code in JobErrorCode]
    parts = [HEAD, "\nThe caller has to act:\n\n", table(ANSWER_COLUMNS, theirs)]
    parts += ["\nThe operator has to act, or time:\n\n", table(ANSWER_COLUMNS, ours)]
    return "".join([*parts, JOBS, table(("code", "meaning"), jobs)])


def row(kind: type[GatewayError]) -> tuple[str, ...]:
    """One line of a table."""
    retry = "yes" if kind.retryable else "no"
    return f"`{kind.code}`", str(kind.status), f"`{kind.type}`", retry, kind.__doc__ or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
