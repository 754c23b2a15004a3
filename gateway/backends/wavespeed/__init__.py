"""WaveSpeed: its wire, its errors and its words."""

from gateway.backends.wavespeed.provider import WaveSpeed

__all__ = ["WaveSpeed"]
