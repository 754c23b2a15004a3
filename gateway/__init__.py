"""Antiphon's gateway: the only room with doors (HTTP in, backends out, jobs between)."""
