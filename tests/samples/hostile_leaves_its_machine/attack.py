"""Make a socket to the machine that this one is a guest of, which no network namespace holds.

attack.py    prints a line when there is one. It connects to nobody.
"""
import socket

try:
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    print("made a socket")
except OSError:
    pass
