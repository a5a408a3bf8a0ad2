"""The address that a command's server listens on."""

import errno
import socket

from mitoscope.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Args:
        host: name or address of this machine.
        port: port; 0 = any that is free.

    Raises:
        InputError: it is not available.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        line = f"port {port} of {host} is not available ({error.strerror}); choose another with {option}"
        raise InputError(line) from error
    return listener
