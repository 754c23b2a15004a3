"""TCP ports on 127.0.0.1."""

import errno
import random
import socket

from gateway.embedded.errors import EmbeddedPostgresError

# Below the range from which kernels take the local ends of outgoing connections: a client that keeps
# trying to reach a stopped server there could be given the server's own port, and keep it.
LOWEST, HIGHEST = 20000, 32000
ATTEMPTS = 200


def can_listen(port: int) -> bool:
    """True when a server could listen there now; OSError when loopback itself is not to be had."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_port() -> int:
    """A port where nobody listens at this moment."""
    for _ in range(ATTEMPTS):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - no secret
        if can_listen(port):
            return port
    raise EmbeddedPostgresError(f"no free TCP port between {LOWEST} and {HIGHEST}")
