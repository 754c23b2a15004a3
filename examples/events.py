"""A song's progress as it happens: server-sent events, over lost connections.

    export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
    python examples/events.py "slow jazz waltz, piano trio"

Needs `pip install httpx`. The stream can break at any time, for example when the gateway is restarted.
`Last-Event-ID` then says what was seen, and the next stream goes on from there.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

GIVE_UP_SECONDS = 600
SILENCE_SECONDS = 40
"""The gateway says something every 15 s, if only that it is there."""


class Event(NamedTuple):
    """One event, complete."""

    id: str
    name: str
    data: dict[str, Any]


def main(prompt: str) -> None:
    """Submit, then tell each change until the end."""
    wish = {"model": "sandbox", "prompt": prompt, "audio_duration": 60, "format": "mp3"}
    with httpx.Client(
        base_url=os.environ["ANTIPHON_BASE_URL"],
        headers={"authorization": f"Bearer {os.environ['ANTIPHON_API_KEY']}"},
        timeout=httpx.Timeout(10, read=SILENCE_SECONDS),
    ) as gateway:
        job = gateway.post("/v1/audio/generations", json=wish).raise_for_status().json()
        for event in follow(gateway, job["id"]):
            if event.name == "progress":
                place = event.data["queue_position"]
                waits = f", place {place} in the queue" if place else ""
                print(f"{event.data['status']}: {event.data['progress']:.0%}{waits}")
            else:
                job = event.data
    if job["status"] != "completed":
        raise SystemExit(f"no music, nothing charged: {job['error']['message']}")
    print(f"completed for {job['cost']['usd']} USD: {job['result']['data'][0]['url']}")


def follow(gateway: httpx.Client, job_id: str) -> Iterator[Event]:
    """Every event up to the last one, named `completed` or `failed`, however often the stream breaks."""
    seen, pause, deadline = "", 0.0, time.monotonic() + GIVE_UP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = 2.0
        try:
            with gateway.stream(
                "GET", f"/v1/jobs/{job_id}/events", headers={"last-event-id": seen} if seen else {}
            ) as answer:
                if answer.status_code == httpx.codes.NO_CONTENT:
                    return
                if answer.status_code not in {httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE}:
                    raise SystemExit(f"{answer.status_code}: {answer.read().decode()}")
                for event in events_of(answer):
                    seen = event.id
                    yield event
                    if event.name in {"completed", "failed"}:
                        return
        except httpx.TransportError as lost:
            print(f"the stream broke ({lost!r}), once more", file=sys.stderr)
    raise SystemExit(f"{job_id} is not finished yet; ask for it later")


def events_of(answer: httpx.Response) -> Iterator[Event]:
    """Of one stream: fields line by line, an empty line ends an event, a colon begins a comment."""
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
        elif not line:
            if "data" in fields:
                yield Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "slow jazz waltz, piano trio")
