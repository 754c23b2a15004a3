"""Weights: where they are, what is in them, whether they are whole. Free of torch; `loading` is not.

A source is a folder or `owner/name[@revision]` of the hub, in the diffusers or the upstream layout; donors of
what it lacks follow after plus signs.
"""

from engine.ace_step.checkpoint.checking import check
from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.facts import Facts, ModuleFacts, inspect
from engine.ace_step.checkpoint.known import PLANNER, RELEASES, Release, release_of
from engine.ace_step.checkpoint.manifest import Manifest, declare
from engine.ace_step.checkpoint.planners import check_planner, inspect_planner
from engine.ace_step.checkpoint.pull import Download, Pulled, downloads_for, pull
from engine.ace_step.checkpoint.sources import local_folder

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
