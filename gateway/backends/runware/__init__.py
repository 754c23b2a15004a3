"""Runware's music API over HTTP: the outgoing side of its wire format."""

from gateway.backends.runware.runware import Runware

__all__ = ["Runware"]
