"""Runs the pods that a real scheduler binds to its nodes as processes of this machine. Needs root.

For people's containers there are container engines; this one shows, without any, that the real
controllers do to our processes what we say of them. It has what the manifests of `troupe lws
manifest` need: environment, Secrets, ConfigMaps, folders, probes, kubelet's back-off, grace.
"""

import os
import sys
import threading
import time

from api import ApiError, Informer
from names import Names
from pod import Pod
from pod_network import GATEWAY, PodNetwork
from policies import POLICIES, Policies, apply, available
from relay import Relay

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
API_PORT = 443
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"}


def timestamp(clock_s):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock_s))


class ProcessKubelet:
    """`images` maps the name of an image to the environment of its containers."""

    def __init__(self, api, folder, images, nodes=3):
        self.api, self.folder, self.images = api, folder, images
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.nodes = [f"node-{i}" for i in range(nodes)]
        self.running, self.held, self.relay = {}, set(), None
        os.makedirs(folder, exist_ok=True)
        self.network = PodNetwork()
        self.pods = Informer(api, "/api/v1/pods", self.stop, self.on_pod)
        self.services = Informer(api, "/api/v1/services", self.stop)
        self.names = Names(self.pods, self.services, self.address_of)
        self.policy_objects = Informer(api, POLICIES, self.stop)
        self.policies = Policies(self.pods, self.policy_objects, self.address_of)
        self.filters = available()

    def image(self, name):
        """The variables of the image, and what kubelet tells every container."""
        return self.images[name] | {"KUBERNETES_SERVICE_HOST": GATEWAY,
                                    "KUBERNETES_SERVICE_PORT": str(API_PORT)}

    def address_of(self, pod):
        running = self.running.get(pod["metadata"]["uid"])
        return running.address if running else None

    def pod(self, name):
        """The pod that runs under this name, without those that are about to go."""
        for pod in list(self.running.values()):
            if pod.name == name and pod.address and not pod.is_deleted():
                return pod
        return None

    def hold(self, name):
        """Pods of this name are not started until release()."""
        self.held.add(name)

    def release(self, name):
        self.held.discard(name)
        for pod in list(self.pods.items.values()):
            self.on_pod("MODIFIED", pod)

    def on_pod(self, kind, pod):
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("nodeName") not in self.nodes:
            return
        with self.lock:
            known = self.running.get(uid)
            if known:
                known.update(pod, gone=kind == "DELETED")
                if kind == "DELETED":
                    self.running.pop(uid)
            elif kind != "DELETED" and pod["metadata"]["name"] not in self.held:
                self.running[uid] = Pod(self, pod)
                self.running[uid].start()

    def register(self, name):
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        self.api.call("POST", "/api/v1/nodes", {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        now = timestamp(time.time())
        self.api.merge(f"/api/v1/nodes/{name}/status", {"status": {
            "capacity": CAPACITY, "allocatable": CAPACITY,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "ProcessKubelet",
                            "lastHeartbeatTime": now, "lastTransitionTime": now}]}})

    def renew(self, name):
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40,
                "renewTime": timestamp(time.time())[:-1] + ".000000Z"}
        try:
            self.api.merge(f"{LEASES}/{name}", {"spec": spec})
        except ApiError as problem:
            if problem.status != 404:
                raise
            self.api.call("POST", LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                                           "metadata": {"name": name}, "spec": spec})

    def heartbeat(self):
        while not self.stop.is_set():
            for name in self.nodes:
                self.renew(name)
            self.stop.wait(10)

    def enforce(self, pod):
        """Puts the policies of the moment around a pod; before its containers start, and later
        wherever they have changed."""
        if not self.filters:
            return
        rules = self.policies.rules(pod.object)
        if rules != pod.rules:
            apply(self.network.inside(pod.uid), rules)
            pod.rules = rules

    def start(self):
        if not self.filters:
            print("no packet filter here (Debian: nftables): NetworkPolicies are not enforced",
                  file=sys.stderr)
        for name in self.nodes:
            self.register(name)
        threading.Thread(target=self.heartbeat, daemon=True).start()
        self.services.start()
        self.services.synced.wait()
        self.policy_objects.start()
        self.policy_objects.synced.wait()
        self.names.serve(self.network.dns_socket())
        self.relay = Relay(self.network.listening_socket(API_PORT), (self.api.host, self.api.port))
        self.pods.start()

    def close(self):
        self.stop.set()
        if self.relay:
            self.relay.close()
        pods = list(self.running.values())
        for pod in pods:
            pod.wake.set()
        for pod in pods:
            pod.join(20)
        self.network.close()
