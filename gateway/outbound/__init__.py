"""URLs that clients named, reached as a stranger would have to reach them."""
