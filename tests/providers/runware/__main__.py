"""`python -m tests.providers.runware`: the stand-in alone, for development."""

from tests.providers.alone import command
from tests.providers.runware.running import API_KEY, running

if __name__ == "__main__":
    command(
        running,
        key=API_KEY,
        addresses=lambda stand_in: {"url": stand_in.url, "ws_url": stand_in.ws_url, "key": stand_in.key},
    )()
