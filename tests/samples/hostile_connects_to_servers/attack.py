"""Connect to servers of the host: by TCP, by a socket file, by an abstract name.

attack.py PORT SOCKET NAME    prints a line for each that answers.
"""
import socket
import sys

port, path, name = sys.argv[1:]
for family, address in (
    (socket.AF_INET, ("127.0.0.1", int(port))),
    (socket.AF_UNIX, path),
    (socket.AF_UNIX, "\0" + name),
):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(address)
            print("connected to", repr(address))
    except OSError:
        pass
