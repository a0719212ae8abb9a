"""Use up memory, in ways that no limit of a single process holds.

attack.py WAY MIB [stop]    then waits to be stopped, unless it is refused; or gives all back and stops.
"""
import ctypes
import fcntl
import mmap
import os
import platform
import resource
import select
import socket
import struct
import subprocess
import sys
import threading
import time

way, mib = sys.argv[1], int(sys.argv[2])
CALLS = {"x86_64": (29, 31, 64, 66, 68, 71, 317), "aarch64": (194, 195, 190, 191, 186, 187, 277)}
SHMGET, SHMCTL, SEMGET, SEMCTL, MSGGET, MSGCTL, SECCOMP = CALLS.get(platform.machine(), [0] * 7)
RECORD = 200  #: bytes that the kernel takes for a lock or a watch
PRIVATE, CREATE, REMOVE = 0, 0o1600, 0
taken = []
page = b"x" * (1 << 20)
kept = []
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if result < 0:
        sys.exit("refused: " + os.strerror(ctypes.get_errno()))
    return result


def memory_files(number, keep):
    for _ in range(number // 50 or 1):
        file = os.memfd_create("hidden")
        for _ in range(min(50, number)):
            os.write(file, page)
        keep(file)


def become_root_of_a_namespace():
    identity = [("setgroups", "deny"), ("uid_map", "0 %d 1" % os.getuid()), ("gid_map", "0 %d 1" % os.getgid())]
    libc.unshare(0x10000000 | 0x20000)
    for name, text in identity:
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)


def fill_tmp():
    for number in range(mib):
        with open("/tmp/%d" % number, "wb") as file:
            file.write(page)


def fill(descriptor):
    """Bytes that go into a socket or pipe before it would block."""
    os.set_blocking(descriptor, False)
    filled = 0
    try:
        while filled < mib << 20:
            filled += os.write(descriptor, page[:65536])
    except BlockingIOError:
        return filled


def fill_sockets(make):
    """Make pairs of sockets until they hold as much as is wanted."""
    filled = 0
    while filled < mib << 20:
        pair = make()
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            filled += fill(end.fileno())
        kept.append(pair)


def connected(family, address):
    """A socket that is connected to a listener, which keeps all that is sent to it."""
    if not kept:
        kept.append(socket.socket(family))
        kept[0].bind(address)
        kept[0].listen(4096)
    end = socket.socket(family)
    end.connect(kept[0].getsockname())
    return end


def fill_connections(family, address, keep):
    filled = 0
    while filled < mib << 20:
        end = connected(family, address)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        filled += fill(end.fileno())
        keep(end)


def fill_pipes():
    """Bytes in as many pipes as one process may have."""
    filled = 0
    try:
        while filled < mib << 20:
            end = os.pipe()[1]
            try:
                fcntl.fcntl(end, 1031, 1 << 20)  # F_SETPIPE_SZ
            except OSError:
                pass  # this user has many large ones already
            filled += fill(end)
    except OSError:
        pass  # no more descriptors
    return filled


if way == "processes":
    for _ in range(mib // 50):
        if os.fork() == 0:
            kept = page * 50
            time.sleep(300)
elif way == "files":
    memory_files(mib, kept.append)
elif way == "shared":
    shared = mmap.mmap(-1, mib << 20)
    for _ in range(mib):
        shared.write(page)
elif way == "dropped":  # touched and let go of: no process has it in its sums any more
    shared = mmap.mmap(-1, mib << 20)
    for at in range(0, mib << 20, 1 << 20):
        shared.write(page)
        shared.madvise(mmap.MADV_DONTNEED, at, 1 << 20)
elif way == "mapped":  # written as files, kept by a mapping that was never touched
    def keep_mapped(file):  # Python's mmap would keep a descriptor of its own
        libc.mmap(None, ctypes.c_size_t(os.fstat(file).st_size), 1, 1, file, ctypes.c_long(0))
        os.close(file)
    memory_files(mib, keep_mapped)
elif way == "sent":  # kept by messages that nobody takes
    ends = socket.socketpair()
    def keep_sent(file):
        socket.send_fds(ends[0], [b"x"], [file])
        os.close(file)
    memory_files(mib, keep_sent)
elif way == "nested":  # the same in a message that carries the socket which has the others
    outer, inner = socket.socketpair(), socket.socketpair()
    files = [os.memfd_create("hidden") for _ in range(mib // 50)]
    for file in files:
        socket.send_fds(inner[0], [b"x"], [file])
    socket.send_fds(outer[0], [b"x"], [inner[1].fileno()])
    for end in inner:
        end.close()
    for file in files:
        for _ in range(50):
            os.write(file, page)
        os.close(file)
elif way == "thread":  # kept by a thread with a table of descriptors of its own
    done = threading.Event()
    def hold():
        libc.unshare(0x400)
        memory_files(mib, kept.append)
        done.set()
        time.sleep(300)
    threading.Thread(target=hold, daemon=True).start()
    done.wait()
elif way == "headless":  # of processes whose first thread has ended, so that they look dead
    def outlive(told):
        while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        kept.append(page * 50)
        os.write(told, b".")
        time.sleep(0 if sys.argv[3:] == ["stop"] else 300)
        os._exit(0)
    for _ in range(mib // 50):
        ours, theirs = os.pipe()
        if os.fork() == 0:
            threading.Thread(target=outlive, args=[theirs]).start()
            libc.pthread_exit(None)
        os.read(ours, 1)
elif way == "mounts":
    become_root_of_a_namespace()
    fill_tmp()
elif way == "mounted":  # a file system that a child has mounted, kept by a descriptor
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        become_root_of_a_namespace()
        socket.send_fds(theirs, [b"x"], [os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)])
        os._exit(0)
    _, [folder], _, _ = socket.recv_fds(ours, 1, 1)
    os.wait()
    for number in range(mib):
        file = os.open(str(number), os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        os.write(file, page)
        os.close(file)
elif way == "sockets":
    fill_sockets(socket.socketpair)
elif way == "connections":  # whose other end is closed, and whose own nobody has accepted
    fill_connections(socket.AF_UNIX, "", socket.socket.close)
elif way == "loopback":
    fill_connections(socket.AF_INET, ("127.0.0.1", 0), kept.append)
elif way == "pipes":
    filled = 0
    while filled < mib << 20:
        ours, theirs = os.pipe()
        if os.fork() == 0:
            os.write(theirs, b"%d" % fill_pipes())
            time.sleep(0 if sys.argv[3:] == ["stop"] else 300)
            os._exit(0)
        filled += int(os.read(ours, 20))
        os.close(ours)
        os.close(theirs)
elif way == "spliced":  # a byte in a pipe keeps the whole page that it stands in, which may be of 2 MiB
    huge = 2 << 20
    block = mmap.mmap(-1, 2 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    here = ctypes.addressof(ctypes.c_char.from_buffer(block))
    skipped = -here % huge
    for _ in range(mib // 32 or 1):
        kept.append(os.pipe())
        for _ in range(16):
            block.madvise(14, skipped, huge)  # MADV_HUGEPAGE
            block[skipped] = 1
            part = (ctypes.c_void_p * 2)(here + skipped, 1)
            if libc.vmsplice(kept[-1][1], part, ctypes.c_size_t(1), 0) < 0:
                sys.exit("refused: " + os.strerror(ctypes.get_errno()))
            block.madvise(mmap.MADV_DONTNEED, skipped, huge)
elif way == "pinned":  # the same, by a socket that sends without a copy, to one that takes nothing more
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept.append(socket.create_connection(server.getsockname()))
        kept.append(server.accept()[0])
    fill(kept[0].fileno())
    kept[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
    kept[0].setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    huge = 2 << 20
    block = mmap.mmap(-1, 2 * huge, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    skipped = -ctypes.addressof(ctypes.c_char.from_buffer(block)) % huge
    for _ in range(mib // 2 or 1):
        block.madvise(14, skipped, huge)  # MADV_HUGEPAGE
        block[skipped] = 1
        try:
            kept[0].send(memoryview(block)[skipped : skipped + 1], 0x4000000)  # MSG_ZEROCOPY
        except OSError as error:
            sys.exit("refused: " + error.strerror)
        block.madvise(mmap.MADV_DONTNEED, skipped, huge)
elif way == "secret":  # which only its mappings tell of, and they are gone
    file = call(447, 0)
    os.ftruncate(file, mib << 20)
    for at in range(mib):
        with mmap.mmap(file, 1 << 20, offset=at << 20) as part:
            part.write(page)
elif way == "tables":  # each page of them maps 2 MiB, of zeros that are everybody's
    libc.mmap.restype = ctypes.c_void_p
    size = mib << 29
    begin = libc.mmap(None, ctypes.c_size_t(size), 1, 0x4022, -1, ctypes.c_long(0))
    libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), 15)  # MADV_NOHUGEPAGE
    for address in range(begin, begin + size, 2 << 20):
        ctypes.c_char.from_address(address).value
elif way == "locks":  # on every other byte of files, so that none is joined to its neighbour
    for number in range((mib << 20) // RECORD):
        if number % 1000 == 0:
            file = os.memfd_create("locked")
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2000 - number % 1000 * 2)  # downwards: the first is found first
elif way == "watches":  # of the same few descriptors, over and over
    resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
    watched = [os.eventfd(0) for _ in range(3000)]
    for number in range((mib << 20) // RECORD):
        if number % 3000 == 0:
            kept.append(select.epoll())
        kept[-1].register(watched[number % 3000])
elif way == "parked":  # the same, by epolls that are in messages, each of few files under many numbers
    resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
    kept.append(socket.socketpair())
    watched = [os.eventfd(0) for _ in range(10)]
    for _ in range((mib << 20) // RECORD // 30000 + 1):
        watching = select.epoll()
        for file in watched:
            for number in range(1000, 4000):
                os.dup2(file, number)
                watching.register(number)
        socket.send_fds(kept[0][0], [b"x"], [watching.fileno()])
        watching.close()
elif way == "attributes":  # of a file in memory, as many as a look can list
    for number in range(mib * 16):
        if number % 1600 == 0:
            kept.append(os.memfd_create("described"))
        os.setxattr(kept[-1], "user.%d" % number, page[: 1 << 16])
elif way == "listless":  # and more than it can list
    kept.append(os.memfd_create("described"))
    for number in range(mib << 4):
        os.setxattr(kept[-1], "user.%d" % number + "x" * 200, page[: 1 << 16])
elif way == "described":  # and of files that are mapped, and not open any more
    for number in range(mib * 16):
        if number % 160 == 0:
            file = os.memfd_create("described")
            os.ftruncate(file, 4096)
            libc.mmap(None, ctypes.c_size_t(4096), 1, 1, file, ctypes.c_long(0))
        os.setxattr(file, "user.%d" % number, page[: 1 << 16])
        if number % 160 == 159:
            os.close(file)
elif way == "events":  # that nobody reads, of files with long names
    folder = os.path.join(os.environ.get("TMPDIR", "/tmp"), "watched-%d" % os.getpid())
    os.mkdir(folder)
    for _ in range(mib // 8 or 1):
        kept.append(libc.inotify_init())
        if libc.inotify_add_watch(kept[-1], folder.encode(), 0x300) < 0:  # created, deleted
            sys.exit("refused: " + os.strerror(ctypes.get_errno()))
    for number in range(8200):
        name = os.path.join(folder, "%0240d" % number)
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        os.unlink(name)
    os.rmdir(folder)
elif way == "owned":  # locks of open files that are mapped, and that no descriptor tells of any more
    for number in range((mib << 20) // RECORD):
        if number % 1000 == 0:
            file = os.memfd_create("locked")
            libc.mmap(None, ctypes.c_size_t(4096), 1, 1, file, ctypes.c_long(0))
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 2000 - number % 1000 * 2, 1, 0)
        try:
            fcntl.fcntl(file, 37, lock)  # F_OFD_SETLK
        except OSError as error:
            sys.exit("refused: " + error.strerror)
        if number % 1000 == 999:
            os.close(file)
elif way == "rules":  # of Landlock, 65,536 ports in a descriptor
    for _ in range(mib // 8 or 1):
        kept.append(call(444, (ctypes.c_uint64 * 2)(0, 3), 16, 0))
        for port in range(1 << 16):
            call(445, kept[-1], 2, (ctypes.c_uint64 * 2)(3, port), 0)
elif way == "filters":  # of calls, kept by who may listen to them while nobody is held by them any more
    allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000) * 4000)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4000, ctypes.addressof(allow)))
    ours, theirs = socket.socketpair()
    for _ in range(mib):
        if os.fork() == 0:
            libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
            for _ in range(2):
                call(SECCOMP, 1, 0, program)
            socket.send_fds(theirs, [b"x"], [call(SECCOMP, 1, 8, program)])
            os._exit(0)
        if os.wait()[1]:
            os._exit(1)
        kept.extend(socket.recv_fds(ours, 1, 1)[1])
elif way == "segments":
    for _ in range(mib):
        taken.append((SHMCTL, call(SHMGET, PRIVATE, 1 << 20, CREATE), REMOVE, 0))
elif way == "semaphores":
    for _ in range(mib):
        taken.append((SEMCTL, call(SEMGET, PRIVATE, 16000, CREATE), 0, REMOVE))
elif way == "messages":
    for _ in range(mib):
        taken.append((MSGCTL, call(MSGGET, PRIVATE, CREATE), REMOVE, 0))
elif way == "rings":
    parameters = ctypes.create_string_buffer(120)
    for _ in range(mib):
        call(425, 1, ctypes.addressof(parameters))
elif way == "queues":
    libc.mq_open.restype = ctypes.c_int
    for number in range(mib * 2):
        attributes = (ctypes.c_long * 8)(0, 10, 8192)
        if libc.mq_open(b"/%d.%d" % (os.getpid(), number), os.O_CREAT | os.O_RDWR, 0o600, attributes) < 0:
            sys.exit("refused: " + os.strerror(ctypes.get_errno()))
        libc.mq_unlink(b"/%d.%d" % (os.getpid(), number))
print("used", flush=True)
if sys.argv[3:] == ["stop"]:
    for words in taken:
        call(*words)
    os._exit(0)
time.sleep(300)
