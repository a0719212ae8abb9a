"""Looks for a key by its name in the keyring that it has inherited, and leaves one for whoever comes next.

Arguments: the key's name, the name of the one to leave, the numbers of add_key and keyctl.
"""

import ctypes
import sys

SESSION_KEYRING = -3
SEARCH, READ = 10, 11

libc = ctypes.CDLL(None)
wanted, left = (name.encode() for name in sys.argv[1:3])
add_key, keyctl = map(int, sys.argv[3:5])
key = libc.syscall(keyctl, SEARCH, SESSION_KEYRING, b"user", wanted, 0)
if key > 0:
    secret = ctypes.create_string_buffer(100)
    length = libc.syscall(keyctl, READ, key, secret, 100)
    print("read", secret.raw[:length].decode())
if libc.syscall(add_key, b"user", left, b"hello", 5, SESSION_KEYRING) > 0:
    print("left", left.decode())
