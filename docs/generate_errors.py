"""Write docs/errors.md from the error classes: `python docs/generate_errors.py`; `--check` only compares."""

# ruff: noqa: INP001 - a script beside files that are no Python
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.errors import ClientError, GatewayError, raised_errors  # noqa: E402 - found through the line above
from gateway.jobs.job import MEANINGS, JobErrorCode  # noqa: E402

PAGE = ROOT / "docs" / "errors.md"
HEAD = """\
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
TABLE = "\n| code | HTTP | type | retry | meaning |\n|---|---|---|---|---|\n"
JOBS = """
## In a job

A job that was accepted and ends without music is `failed` and has `error.code`. It is never charged.

| code | meaning |
|---|---|
"""


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds the page out of date."""
    page = render()
    if arguments == ["--check"]:
        if PAGE.exists() and PAGE.read_text() == page:
            return 0
        print("docs/errors.md is out of date: run python docs/generate_errors.py", file=sys.stderr)  # noqa: T201
        return 1
    PAGE.write_text(page)
    return 0


def render() -> str:
    """The whole page."""
    kinds = raised_errors()
    theirs = [row(kind) for kind in kinds if issubclass(kind, ClientError)]
    ours = [row(kind) for kind in kinds if not issubclass(kind, ClientError)]
    jobs = [f"| `{code}` | {MEANINGS[code]} |\n" for code in JobErrorCode]
    parts = [HEAD, "\nThe caller has to act:\n", TABLE, *theirs]
    parts += ["\nThe operator has to act, or time:\n", TABLE, *ours]
    return "".join([*parts, JOBS, *jobs])


def row(kind: type[GatewayError]) -> str:
    """One line of a table."""
    meaning = " ".join((kind.__doc__ or "").split())
    retry = "yes" if kind.retryable else "no"
    return f"| `{kind.code}` | {kind.status} | `{kind.type}` | {retry} | {meaning} |\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
