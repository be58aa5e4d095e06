"""Answers what a cluster's DNS would: the names of pods and Services, from the API's objects."""

import socket
import struct
import threading

NO_ERROR, NO_SUCH_NAME = 0, 3
TYPE_A, TYPE_ANY = 1, 255
DOMAIN = ["svc", "cluster", "local"]


def selects(service, pod):
    selector = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels", {})
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class Names:
    """`pods` and `services` are informers; `address_of(pod)` is None before it has one."""

    def __init__(self, pods, services, address_of):
        self.pods, self.services, self.address_of = pods, services, address_of

    def published(self, service, pod):
        if not self.address_of(pod):
            return False
        if service["spec"].get("publishNotReadyAddresses"):
            return True
        return is_ready(pod) and not pod["metadata"].get("deletionTimestamp")

    def lookup(self, name):
        """Addresses of <service>.<namespace> or <hostname>.<service>.<namespace>."""
        parts = name.rstrip(".").lower().split(".")
        if parts[-3:] != DOMAIN or len(parts) not in (5, 6):
            return []
        host = parts[0] if len(parts) == 6 else None
        service_name, namespace = parts[-5:-3]
        service = self.services.items.get((namespace, service_name))
        if not service:
            return []
        found = []
        for pod in list(self.pods.items.values()):
            spec = pod["spec"]
            if pod["metadata"]["namespace"] != namespace or not selects(service, pod):
                continue
            named = host is None or (spec.get("subdomain") == service_name and
                                     spec.get("hostname", "").lower() == host)
            if named and self.published(service, pod):
                found.append(self.address_of(pod))
        return found

    def answer(self, packet):
        """RFC 1035, 4.1: the question again, and an A record for each address."""
        query_id = struct.unpack(">H", packet[:2])[0]
        at, labels = 12, []
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin1"))
            at += 1 + packet[at]
        kind = struct.unpack(">H", packet[at + 1:at + 3])[0]
        question = packet[12:at + 5]
        addresses = self.lookup(".".join(labels))
        records = [b"\xc0\x0c" + struct.pack(">HHIH", TYPE_A, 1, 5, 4) + socket.inet_aton(a)
                   for a in addresses if kind in (TYPE_A, TYPE_ANY)]
        code = NO_ERROR if addresses else NO_SUCH_NAME
        head = struct.pack(">HHHHHH", query_id, 0x8580 | code, 1, len(records), 0, 0)
        return head + question + b"".join(records)

    def serve(self, listening):
        def loop():
            while True:
                try:
                    packet, peer = listening.recvfrom(1500)
                    listening.sendto(self.answer(packet), peer)
                except (IndexError, struct.error):
                    continue
                except OSError:
                    return
        threading.Thread(target=loop, daemon=True).start()
