"""A pod of this node: a thread that starts its containers, probes them, says how they are."""

import os
import signal
import subprocess
import sys
import threading
import time

from api import ApiError
from container import Container, timestamp
from pod_network import DNS_ADDRESS
from pod_spec import make_volume

TICK_S = 0.1
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class Pod(threading.Thread):
    def __init__(self, node, pod):
        super().__init__(daemon=True)
        metadata = pod["metadata"]
        self.node, self.object, self.spec = node, pod, pod["spec"]
        self.uid, self.name = metadata["uid"], metadata["name"]
        self.namespace = metadata["namespace"]
        self.folder = os.path.join(node.folder, f"{self.namespace}_{self.name}_{self.uid[:8]}")
        self.url = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.address, self.sent, self.wake, self.gone = None, None, threading.Event(), False
        self.rules = None  # of its packet filter
        self.started_at, self.changed, self.volumes = timestamp(), {}, {}
        self.containers = [Container(self, spec) for spec in pod["spec"]["containers"]]

    def file(self, name):
        return os.path.join(self.folder, name)

    def update(self, pod, gone=False):
        self.object, self.gone = pod, self.gone or gone
        self.wake.set()

    def is_deleted(self):
        stopping = self.node.stop.is_set()
        return stopping or self.gone or "deletionTimestamp" in self.object["metadata"]

    def condition(self, kind, holds):
        old = self.changed.get(kind)
        if not old or old[0] != holds:
            self.changed[kind] = old = (holds, timestamp())
        return {"type": kind, "status": str(holds), "lastTransitionTime": old[1]}

    def push(self, phase="Running"):
        ready = phase == "Running" and all(c.ready for c in self.containers)
        scheduled = [c for c in self.object.get("status", {}).get("conditions", [])
                     if c["type"] == "PodScheduled"] or [self.condition("PodScheduled", True)]
        status = {"phase": phase, "startTime": self.started_at, "hostIP": "127.0.0.1",
                  "podIP": self.address, "podIPs": [{"ip": self.address}],
                  "conditions": scheduled + [self.condition("Initialized", True),
                                             self.condition("ContainersReady", ready),
                                             self.condition("Ready", ready)],
                  "containerStatuses": [c.status() for c in self.containers]}
        if status == self.sent:
            return
        try:
            self.node.api.merge(self.url + "/status",
                                {"metadata": {"uid": self.uid}, "status": status})
            self.sent = status
        except ApiError as problem:
            if problem.status not in (404, 409):
                raise

    def run_probe(self, container, probe):
        timeout_s = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            return container.run_here(probe["exec"]["command"], timeout_s)
        asked = probe["httpGet"]
        port = next((p["containerPort"] for p in container.spec.get("ports", [])
                     if p.get("name") == asked["port"]), asked["port"])
        url = f"http://{self.address}:{port}{asked.get('path', '/')}"
        done = subprocess.run(
            self.node.network.on_bridge() +
            ["curl", "-gs", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "-m",
             str(timeout_s), url], capture_output=True, text=True, check=False)
        return done.stdout[:1] in ("2", "3")

    def probe(self, container, kind):
        probe = container.spec.get(kind)
        if not probe or container.started == (kind == "startupProbe"):
            return
        state = container.probes.setdefault(
            kind, {"next": container.started_s + probe.get("initialDelaySeconds", 0), "bad": 0})
        if time.monotonic() < state["next"]:
            return
        good = self.run_probe(container, probe)
        state["next"] = time.monotonic() + probe.get("periodSeconds", 10)
        state["bad"] = 0 if good else state["bad"] + 1
        failed = state["bad"] >= probe.get("failureThreshold", 3)
        if kind == "readinessProbe":
            container.ready = good or (container.ready and not failed)
        elif failed:
            print(f"{self.name}: {kind} failed, the container ends", file=sys.stderr)
            container.signal(signal.SIGTERM)
            container.kill_at = time.monotonic() + self.spec["terminationGracePeriodSeconds"]
        elif kind == "startupProbe":
            container.started = good
            container.ready = good and "readinessProbe" not in container.spec

    def live(self):
        os.makedirs(self.folder, exist_ok=True)
        self.address = self.node.network.add(self.uid)
        own = self.spec.get("hostname") or self.name
        domain = f"{self.namespace}.svc.cluster.local"
        with open(self.file("resolv.conf"), "w", encoding="utf-8") as out:
            out.write(f"search {domain} svc.cluster.local cluster.local\n"
                      f"nameserver {DNS_ADDRESS}\noptions ndots:5 timeout:2 attempts:2\n")
        with open(self.file("hosts"), "w", encoding="utf-8") as out:
            full = f" {own}.{self.spec['subdomain']}.{domain}" if "subdomain" in self.spec else ""
            out.write(f"127.0.0.1 localhost\n{self.address}{full} {own}\n")
        self.push("Pending")
        for volume in self.spec.get("volumes", []):
            self.volumes[volume["name"]] = make_volume(self.node.api, self.object, volume,
                                                       self.folder)
        self.node.enforce(self)
        for container in self.containers:
            container.start()
        while not self.is_deleted():
            for container in self.containers:
                container.keep()
                for kind in PROBES:
                    if container.process and not container.kill_at:
                        self.probe(container, kind)
            self.push()
            self.node.enforce(self)
            self.wake.wait(TICK_S)
            self.wake.clear()

    def end(self):
        grace_s = self.object["metadata"].get("deletionGracePeriodSeconds",
                                              self.spec["terminationGracePeriodSeconds"])
        if self.gone or self.node.stop.is_set():
            grace_s = 5
        deadline = time.monotonic() + grace_s
        for container in self.containers:
            hook = container.spec.get("lifecycle", {}).get("preStop", {})
            self.node.stop.wait(min(grace_s, hook.get("sleep", {}).get("seconds", 0)))
            container.signal(signal.SIGTERM)
        while time.monotonic() < deadline and any(
                c.process and c.process.poll() is None for c in self.containers):
            threading.Event().wait(0.05)
        for container in self.containers:
            container.signal(signal.SIGKILL, group=True)
            if container.process:
                container.process.wait()
                container.note_exit()
        self.node.network.remove(self.uid)
        if self.node.stop.is_set() or self.gone:
            return
        clean = all(c.last["terminated"]["exitCode"] == 0 for c in self.containers if c.last)
        self.push("Succeeded" if clean else "Failed")
        try:
            self.node.api.call("DELETE", self.url, {"gracePeriodSeconds": 0,
                                                    "preconditions": {"uid": self.uid}})
        except ApiError as problem:
            if problem.status not in (404, 409):
                raise

    def run(self):
        try:
            self.live()
        except (ApiError, OSError, KeyError, subprocess.SubprocessError) as problem:
            print(f"{self.name}: {problem!r}", file=sys.stderr)
            while not self.is_deleted():
                self.wake.wait(1)
                self.wake.clear()
        self.end()
