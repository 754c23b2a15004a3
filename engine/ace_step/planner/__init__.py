"""The 5Hz language model: plans songs (metadata and audio codes), and describes them in words.

`loading` is left out: whoever only plans needs nothing that downloads.
"""

from engine.ace_step.planner.asks import (
    Description,
    FormatAsk,
    Plan,
    PlanAsk,
    PlanEvent,
    PlanFailed,
    Planned,
    Planning,
    SampleAsk,
    Sampling,
    UnderstandAsk,
    Wishes,
    WriteAsk,
    WriteEvent,
    Written,
)
from engine.ace_step.planner.hearing import codes_of
from engine.ace_step.planner.planner import Planner

__all__ = [
    "Description",
    "FormatAsk",
    "Plan",
    "PlanAsk",
    "PlanEvent",
    "PlanFailed",
    "Planned",
    "Planner",
    "Planning",
    "SampleAsk",
    "Sampling",
    "UnderstandAsk",
    "Wishes",
    "WriteAsk",
    "WriteEvent",
    "Written",
    "codes_of",
]
