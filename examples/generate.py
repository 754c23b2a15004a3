"""One song with httpx: submit safely, poll politely, download and verify.

    export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
    python examples/generate.py "slow jazz waltz, piano trio" waltz.mp3

Needs `pip install httpx`.
"""

import hashlib
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

ATTEMPTS = 6
LONGEST_PAUSE_SECONDS = 5.0
GIVE_UP_SECONDS = 600

Job = dict[str, Any]


def main(prompt: str, path: Path) -> None:
    """Make the song and say what it cost."""
    wish = {"model": "sandbox", "prompt": prompt, "audio_duration": 10, "format": "mp3"}
    with httpx.Client(
        base_url=os.environ["ANTIPHON_BASE_URL"],
        headers={"authorization": f"Bearer {os.environ['ANTIPHON_API_KEY']}"},
        timeout=30,
    ) as gateway:
        job = submit(gateway, wish)
        print(f"job {job['id']} costs at most {job['cost']['held_usd']} USD")
        job = wait(gateway, job)
        track = job["result"]["data"][0]
        download(track["url"], path, sha256=track["sha256"])
    print(f"{path}: {job['cost']['billed_seconds']} s for {job['cost']['usd']} USD, seed {track['seed']}")


def submit(gateway: httpx.Client, wish: dict[str, Any]) -> Job:
    """Send until there is an answer. The key makes that safe: one key and one body are one job."""
    return call(
        gateway, "POST", "/v1/audio/generations", json=wish, headers={"idempotency-key": str(uuid.uuid4())}
    )


def wait(gateway: httpx.Client, job: Job) -> Job:
    """Ask less and less often; `completed` and `failed` are the only last words."""
    pause, deadline = 0.5, time.monotonic() + GIVE_UP_SECONDS
    while job["status"] not in {"completed", "failed"}:
        if time.monotonic() > deadline:
            raise SystemExit(f"{job['id']} is not finished yet; ask for it later")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
        job = call(gateway, "GET", job["poll_url"])
    if job["error"]:
        raise SystemExit(f"no music, nothing charged: {job['error']['message']}")
    return job


def download(url: str, path: Path, *, sha256: str) -> None:
    """The link carries its own permission. The file gets its name when it is complete and right."""
    digest = hashlib.sha256()
    part = path.with_suffix(f"{path.suffix}.part")
    with httpx.stream("GET", url, timeout=60, follow_redirects=True) as answer, part.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != sha256:
        raise SystemExit("the file was damaged on its way")
    part.replace(path)


def call(gateway: httpx.Client, method: str, path: str, **options: Any) -> Job:
    """One request, repeated where that can help: lost connections, and refusals that say so themselves."""
    for attempt in range(ATTEMPTS):
        pause = 0.5 * 2**attempt
        try:
            answer = gateway.request(method, path, **options)
        except httpx.TransportError as lost:
            problem = str(lost)
        else:
            if answer.is_success:
                return dict(answer.json())
            error = answer.json()["error"]
            problem = f"{answer.status_code} {error['code']}: {error['message']}"
            if not error["retryable"]:
                raise SystemExit(problem)
            pause = float(answer.headers.get("retry-after", pause))
        print(f"{problem}; again in {pause:g} s", file=sys.stderr)
        time.sleep(pause)
    raise SystemExit("gave up")


if __name__ == "__main__":
    defaults = ["slow jazz waltz, piano trio", "song.mp3"]
    given = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    main(given[0], Path(given[1]))
