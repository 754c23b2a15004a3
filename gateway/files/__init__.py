"""Sound that clients bring: uploaded, kept for a while, fetched from URLs, decoded for whoever renders."""
