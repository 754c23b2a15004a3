"""`python -m tests.providers.wavespeed`: the stand-in alone, for development."""

from tests.providers.alone import command
from tests.providers.wavespeed.stand_in import API_KEY, running

if __name__ == "__main__":
    command(
        running,
        key=API_KEY,
        addresses=lambda stand_in: {
            "url": stand_in.url,
            "key": stand_in.key,
            "control": f"{stand_in.url}/_control",
        },
    )()
