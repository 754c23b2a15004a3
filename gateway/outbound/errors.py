"""What becomes of a URL that is not reached. The words are for whoever named it: they tell no address."""


class OutboundError(Exception):
    """The URL cannot be reached, or does not answer as a web server should; str() says why."""


class BadUrl(OutboundError):
    """No request to this URL can ever be made; known without asking anybody."""
