"""The 5Hz language model: plans songs (metadata and audio codes), and describes them in words."""

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
from engine.ace_step.planner.loading import load_planner
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
    "load_planner",
]
