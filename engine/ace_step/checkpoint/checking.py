"""Everything that can be proven about a model without putting it into memory."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.facts import Facts, facts_of, inspect
from engine.ace_step.checkpoint.manifest import NAME, Told, verify
from engine.ace_step.checkpoint.pieces import Checkpoint
from engine.ace_step.checkpoint.sources import open_source


def check(
    source: str | Path,
    *,
    donor: str | Path | None = None,
    cache: Path | None = None,
    told: Told | None = None,
) -> Facts:
    """`inspect`, and besides every tensor's name and shape, and all checksums where they are listed.

    Reads every file once if there are checksums; `told` hears how far that is.
    """
    # The import takes seconds, which those who only inspect do not pay.
    from engine.ace_step.checkpoint.loading import mismatches  # noqa: PLC0415

    try:
        checkpoint = open_source(source, donor=donor, cache=cache)
        facts = facts_of(checkpoint, str(source))
        found = [
            *mismatches(checkpoint),
            *(line for folder in _listed(checkpoint) for line in verify(folder, told)),
        ]
    except CheckpointError:
        return inspect(source, donor=donor, cache=cache)
    return msgspec.structs.replace(facts, problems=(*facts.problems, *found))


def _listed(checkpoint: Checkpoint) -> Iterator[Path]:
    """Folders with a list of checksums, each once: the model's and its donors'."""
    seen = set()
    for folder in (
        checkpoint.folder,
        checkpoint.tokenizer,
        *(piece.folder for piece in checkpoint.pieces.values()),
    ):
        for place in (folder, folder.parent):
            if place not in seen and (place / NAME).is_file():
                seen.add(place)
                yield place
