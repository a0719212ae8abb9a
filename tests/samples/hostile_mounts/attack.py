"""Mount over the system, make it writable, and take mounts away; as it is, and as root of a user namespace.

attack.py    prints a line for each thing that could be done.
"""
import ctypes
import os

NEWNS, NEWUSER, PRIVATE, BIND, REMOUNT = 0x20000, 0x10000000, 0x40000 | 0x4000, 0x1000, 0x20
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, flags):
    return libc.mount(source, target, kind, ctypes.c_ulong(flags), None) == 0


def attack(who):
    if mount(b"none", b"/usr", b"tmpfs", 0):
        print(who, "mounted over /usr", flush=True)
        libc.umount2(b"/usr", 2)
    if mount(b"none", b"/usr", b"none", REMOUNT | BIND) and os.access("/usr/bin", os.W_OK):
        print(who, "made /usr writable", flush=True)
    if mount(b"none", b"/", b"none", REMOUNT | BIND) and os.access("/", os.W_OK):
        print(who, "made / writable", flush=True)
    if libc.umount2(b"/etc", 2) == 0:
        print(who, "took /etc away", flush=True)


# In a mount namespace of its own where it may have one, so that nothing is harmed where the attack succeeds.
if os.fork() == 0:
    if libc.unshare(NEWNS) == 0:
        mount(b"none", b"/", b"none", PRIVATE)
        attack("as it is,")
    os._exit(0)
os.wait()
if os.fork() == 0:
    if libc.unshare(NEWUSER | NEWNS) == 0:
        os.system("cd /proc/1/root 2>/dev/null && cat etc/shadow >/dev/null 2>&1 && echo as root of a namespace, read /etc/shadow")
        for target in (b"/usr", b"/"):
            if mount(b"none", target, b"none", REMOUNT | BIND):
                try:
                    open(os.path.join(target, b"written"), "w").close()
                    print("as root of a namespace, wrote to", target, flush=True)
                except OSError:
                    pass
        if libc.umount2(b"/etc", 2) == 0:
            print("as root of a namespace, took /etc away", flush=True)
    os._exit(0)
os.wait()
