"""One song with the unmodified OpenAI client: its keys, retries and errors, on this gateway.

    export ANTIPHON_BASE_URL=http://127.0.0.1:8000 ANTIPHON_API_KEY=aph_live_...
    python examples/openai_client.py "slow jazz waltz, piano trio" waltz.mp3

Needs `pip install openai`. That client has no method for music; its `post` and `get` reach any path.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from openai import APIStatusError, OpenAI


def main(prompt: str, path: Path) -> None:
    """Make the song and say what it cost."""
    client = OpenAI(base_url=os.environ["ANTIPHON_BASE_URL"] + "/v1", api_key=os.environ["ANTIPHON_API_KEY"])
    wish = {"model": "sandbox", "prompt": prompt, "audio_duration": 10, "format": "mp3"}
    try:
        print("models:", ", ".join(model.id for model in client.models.list()))
        # The client repeats a lost request by itself and counts; the gateway answers a repetition with
        # the job of the first one, so it is not made, or paid, twice.
        job: Any = client.post("/audio/generations", cast_to=object, body=wish)
    except APIStatusError as refusal:
        raise SystemExit(f"{refusal.status_code} {refusal.code}: {refusal.message}") from refusal
    while job["status"] not in {"completed", "failed"}:
        time.sleep(0.5)
        job = client.get(f"/jobs/{job['id']}", cast_to=object)
    if job["error"]:
        raise SystemExit(f"no music, nothing charged: {job['error']['message']}")
    song = httpx.get(job["result"]["data"][0]["url"], timeout=60, follow_redirects=True)
    path.write_bytes(song.raise_for_status().content)
    print(f"{path}: {job['cost']['billed_seconds']} s for {job['cost']['usd']} USD")


if __name__ == "__main__":
    defaults = ["slow jazz waltz, piano trio", "song.mp3"]
    given = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    main(given[0], Path(given[1]))
