"""What is wrong with weights."""

from engine.errors import NotLoaded


class CheckpointError(NotLoaded):
    """These weights cannot be served; the message says why and what to do. For the operator."""
