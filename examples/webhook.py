"""A song without polling: order it, be told when it is there, verify who tells.

    export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
    python examples/webhook.py "slow jazz waltz, piano trio" waltz.mp3

Needs `pip install httpx standardwebhooks`. The gateway must reach this program: say in RECEIVER_URL by which
public address, and in RECEIVER_BIND where to listen. Without them it listens on this machine alone, which a
gateway beside it reaches if it was started with ANTIPHON_ALLOW_PRIVATE_HOSTS=1.
"""

import os
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

GIVE_UP_SECONDS = 600
MOST_BYTES = 1_000_000

Event = dict[str, Any]


class Receiver(ThreadingHTTPServer):
    """Takes note of each event once and answers at once; the work is done elsewhere."""

    def __init__(self, host: str, port: int, secret: str) -> None:
        super().__init__((host, port), Handler)
        self.webhook = Webhook(secret)
        self.events: queue.Queue[Event] = queue.Queue()
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def take(self, webhook_id: str, event: Event) -> None:
        """The same event may come twice; a receiver that restarts keeps the ids in its database."""
        with self._lock:
            if webhook_id not in self._known:
                self._known.add(webhook_id)
                self.events.put(event)


class Handler(BaseHTTPRequestHandler):
    """One request. What is not signed by the gateway is refused and changes nothing."""

    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        if not 0 < length <= MOST_BYTES:
            self._answer(413)
            return
        # The raw bytes are what was signed: verify before parsing.
        try:
            event = self.server.webhook.verify(self.rfile.read(length), dict(self.headers.items()))
        except (WebhookVerificationError, ValueError):
            self._answer(401)
            return
        self.server.take(self.headers["webhook-id"], event)
        self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


def main(prompt: str, path: Path) -> None:
    """Make the song and say what it cost."""
    host, port = os.environ.get("RECEIVER_BIND", "127.0.0.1:0").rsplit(":", 1)
    with httpx.Client(
        base_url=os.environ["ANTIPHON_BASE_URL"],
        headers={"authorization": f"Bearer {os.environ['ANTIPHON_API_KEY']}"},
        timeout=30,
    ) as gateway:
        receiver = Receiver(host, int(port), answer_of(gateway.get("/v1/webhooks/secret"))["secret"])
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = os.environ.get("RECEIVER_URL", f"http://127.0.0.1:{receiver.server_port}/")
        print(f"listening for {url}", flush=True)
        wish = {"model": "sandbox", "prompt": prompt, "audio_duration": 10, "format": "mp3"}
        job = answer_of(gateway.post("/v1/audio/generations", json=wish | {"webhook_url": url}))
        job = told(receiver, job["id"])
    if job["error"]:
        raise SystemExit(f"no music, nothing charged: {job['error']['message']}")
    path.write_bytes(httpx.get(job["result"]["data"][0]["url"], timeout=60).raise_for_status().content)
    print(f"{path}: {job['cost']['billed_seconds']} s for {job['cost']['usd']} USD")


def told(receiver: Receiver, job_id: str) -> dict[str, Any]:
    """The job as the gateway tells of it; other events pass by."""
    try:
        while True:
            event = receiver.events.get(timeout=GIVE_UP_SECONDS)
            print(f"{event['type']} at {event['timestamp']}")
            if event["data"].get("job_id") == job_id:
                return dict(event["data"])
    except queue.Empty:
        raise SystemExit(f"nothing was told of {job_id}; GET /v1/jobs/{job_id} knows") from None


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """Its body, or the end of this program with the reason."""
    if response.is_error:
        error = response.json()["error"]
        raise SystemExit(f"{response.status_code} {error['code']}: {error['message']}")
    return dict(response.json())


if __name__ == "__main__":
    defaults = ["slow jazz waltz, piano trio", "song.mp3"]
    given = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    main(given[0], Path(given[1]))
