"""Hosts of a test's own: network namespaces around a router, whose links can be cut and healed.

A cut is made in the router, which then drops what the two send each other without a word: whoever waits for
an answer learns nothing, as when a cable is pulled. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import unittest
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from tests.support.services import need

CUT = 100  #: priority of a cut's rule: before the router's own tables


class Host:
    """One machine on the network."""

    def __init__(self, namespace: str, address: str) -> None:
        self.address = address
        self.namespace = namespace
        #: what to put before a command that is to run there
        self.prefix = ("ip", "netns", "exec", namespace)


class Network:
    """Hosts that all reach each other; everything is gone after the test."""

    def __init__(self, test: unittest.TestCase) -> None:
        if os.geteuid() != 0:
            raise unittest.SkipTest("hosts are network namespaces, which root alone may make")
        if shutil.which("ip") is None:
            need("iproute2", "hosts are network namespaces, which its program ip makes")
        self._name = f"ciapp-{uuid.uuid4().hex[:8]}"
        self._numbers = count(1)
        self._namespaces: list[str] = []
        test.addCleanup(self._remove)
        self._router = self._add("router")
        self._ip("netns", "exec", self._router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")

    def add_host(self, name: str) -> Host:
        """A host, linked to the router by a subnet of its own."""
        number = next(self._numbers)
        host = Host(self._add(name), f"10.93.{number}.2")
        there = ("-n", host.namespace)
        here = ("-n", self._router)
        ours, theirs = f"to{number}", "eth0"
        self._ip(*here, "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", host.namespace)
        self._ip(*here, "address", "add", f"10.93.{number}.1/24", "dev", ours)
        self._ip(*here, "link", "set", ours, "up")
        self._ip(*there, "address", "add", f"{host.address}/24", "dev", theirs)
        self._ip(*there, "link", "set", theirs, "up")
        self._ip(*there, "route", "add", "default", "via", f"10.93.{number}.1")
        return host

    @contextmanager
    def cut(self, one: Host, other: Host) -> Iterator[None]:
        """A block during which the two do not reach each other."""
        ways = [(one.address, other.address), (other.address, one.address)]
        rules = [("from", source, "to", target, "priority", str(CUT), "blackhole") for source, target in ways]
        for rule in rules:
            self._ip("-n", self._router, "rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self._ip("-n", self._router, "rule", "del", *rule)

    def _add(self, name: str) -> str:
        namespace = f"{self._name}-{name}"
        try:
            self._ip("netns", "add", namespace)
        except AssertionError as error:
            need("a network namespace", str(error))
        self._namespaces.append(namespace)
        self._ip("-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _remove(self) -> None:
        for namespace in self._namespaces:
            pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, check=False).stdout
            for pid in map(int, pids.split()):  # RabbitMQ's name server outlives RabbitMQ
                if pid != os.getpid():  # who may have joined it
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    @staticmethod
    def _ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"ip {' '.join(words)}: {done.stderr.strip()}")
