"""The fast paths: exact up to rounding, used where the device supports them. See `accelerate`."""

from engine.ace_step.fast.accelerate import Accelerated, Part, accelerate
from engine.ace_step.fast.graphs import Recorder, capture

__all__ = ["Accelerated", "Part", "Recorder", "accelerate", "capture"]
