"""`python -m tests.checkpoints FOLDER`: write a tiny checkpoint with random weights, to try the engine."""

import argparse
import sys
from pathlib import Path

from tests.checkpoints.tiny import VARIANTS, write_checkpoint
from tests.checkpoints.upstream import write_upstream


def main(arguments: list[str]) -> int:
    """Exit status 2 if the folder holds something already."""
    parser = argparse.ArgumentParser(prog="python -m tests.checkpoints", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=VARIANTS, default="turbo")
    parser.add_argument("--layout", choices=("diffusers", "upstream"), default="diffusers")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    if chosen.folder.exists() and any(chosen.folder.iterdir()):
        parser.error(f"{chosen.folder} is not empty")
    write = write_upstream if chosen.layout == "upstream" else write_checkpoint
    sys.stdout.write(f"{write(chosen.folder, chosen.variant, seed=chosen.seed)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
