"""What customers are told without asking: events, who wants them, and their delivery."""
