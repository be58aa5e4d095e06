"""A network namespace for each pod, joined by a bridge in a namespace of its own: nothing of it is
reachable from outside, and nothing outside from it."""

import ctypes
import os
import queue
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000
DNS_ADDRESS = "10.244.0.53"
GATEWAY = "10.244.0.1"


def ip(*words, namespace=None):
    command = ["ip"] + (["-n", namespace] if namespace else []) + list(words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def in_namespace(name, make):
    """make() on a thread that is in the namespace."""
    box = queue.Queue()

    def go():
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
            try:
                if libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            finally:
                os.close(descriptor)
            box.put(make())
        except OSError as problem:
            box.put(problem)

    threading.Thread(target=go).start()
    made = box.get()
    if isinstance(made, OSError):
        raise made
    return made


class PodNetwork:
    def __init__(self):
        self.node = f"troupe{os.getpid()}"
        self.lock, self.count, self.namespaces = threading.Lock(), 0, {}
        ip("netns", "add", self.node)
        ip("link", "set", "lo", "up", namespace=self.node)
        ip("link", "add", "bridge", "type", "bridge", namespace=self.node)
        for address in (f"{GATEWAY}/16", f"{DNS_ADDRESS}/16"):
            ip("addr", "add", address, "dev", "bridge", namespace=self.node)
        ip("link", "set", "bridge", "up", namespace=self.node)

    def add(self, key):
        """A namespace for `key`; returns its address."""
        with self.lock:
            self.count += 1
            number = self.count
        address = f"10.244.{1 + number // 250}.{1 + number % 250}"
        name, cable = f"{self.node}-{number}", f"pod{number}"
        ip("netns", "add", name)
        self.namespaces[key] = name
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name,
           namespace=self.node)
        ip("link", "set", cable, "master", "bridge", "up", namespace=self.node)
        ip("addr", "add", f"{address}/16", "dev", "eth0", namespace=name)
        ip("link", "set", "lo", "up", namespace=name)
        ip("link", "set", "eth0", "up", namespace=name)
        return address

    def inside(self, key):
        """What goes before a command that is to run in the pod's namespace."""
        return ["nsenter", f"--net=/run/netns/{self.namespaces[key]}"]

    def on_bridge(self):
        return ["nsenter", f"--net=/run/netns/{self.node}"]

    def remove(self, key):
        name = self.namespaces.pop(key, None)
        if name:
            ip("netns", "del", name)

    def close(self):
        for key in list(self.namespaces):
            self.remove(key)
        ip("netns", "del", self.node)

    def dns_socket(self):
        def make():
            listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listening.bind((DNS_ADDRESS, 53))
            return listening
        return in_namespace(self.node, make)

    def listening_socket(self, port):
        """At an address that every pod reaches."""
        def make():
            return socket.create_server((GATEWAY, port))
        return in_namespace(self.node, make)
