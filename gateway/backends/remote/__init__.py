"""Providers over the network: what is common to all of them, behind the Backend protocol."""
