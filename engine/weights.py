"""The engine's door for those who keep weights, not use them: look, pull, check. Free of torch.

`check` imports torch when it is called.
"""

from engine.ace_step.checkpoint import (
    PLANNER,
    RELEASES,
    CheckpointError,
    Download,
    Facts,
    Manifest,
    ModuleFacts,
    Pulled,
    Release,
    check,
    check_planner,
    declare,
    downloads_for,
    inspect,
    inspect_planner,
    local_folder,
    pull,
    release_of,
)

__all__ = [
    "PLANNER",
    "RELEASES",
    "CheckpointError",
    "Download",
    "Facts",
    "Manifest",
    "ModuleFacts",
    "Pulled",
    "Release",
    "check",
    "check_planner",
    "declare",
    "downloads_for",
    "inspect",
    "inspect_planner",
    "local_folder",
    "pull",
    "release_of",
]
