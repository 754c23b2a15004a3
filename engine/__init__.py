"""Music without money: the torch engine's front door."""
