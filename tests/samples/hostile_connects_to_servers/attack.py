"""Connect to servers of the host: by TCP, by a socket file, by an abstract name.

attack.py HOST:PORT|PATH|@NAME...    prints a line for each that answers.
"""
import socket
import sys

for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    if host.startswith("["):
        family, address = socket.AF_INET6, (host.strip("[]"), int(port))
    elif host:
        family, address = socket.AF_INET, (host, int(port))
    else:
        family, address = socket.AF_UNIX, "\0" + place[1:] if place.startswith("@") else place
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(address)
            print("connected to", place)
    except OSError:
        pass
