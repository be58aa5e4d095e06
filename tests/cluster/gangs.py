"""LeaderWorkerSets of gangs on a cluster of this machine: `troupe lws manifest`, applied."""

import json
import os
import re
import shutil
import subprocess
import tempfile

from api import Api, ApiError
from control_plane import ControlPlane, wait_until
from process_kubelet import ProcessKubelet

NAME_LABEL = "leaderworkerset.sigs.k8s.io/name"
SETS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets"
IMAGE = "troupe.test/troupe:1"
LISTENS = 7000  # a stranger
COULD_NOT_CONNECT = 7  # curl's exit code
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Cluster:
    """A control plane and three nodes. `programs`: of scripts/cluster; `binary`: troupe."""

    def __init__(self, programs, binary):
        # Not below /tmp, which pods see empty.
        self.folder = tempfile.mkdtemp(prefix="troupe-cluster-", dir=os.path.dirname(programs))
        os.makedirs(self.file("bin"))
        # A copy: a build that replaces the program must not pull it from under the pods.
        self.binary = shutil.copy2(binary, self.file("bin", "troupe"))
        self.control = ControlPlane(programs, self.file("control"))
        self.kubelet = None

    def file(self, *names):
        return os.path.join(self.folder, *names)

    def start(self):
        self.control.start()
        self.api = Api(self.control.kubeconfig)
        images = {IMAGE: {"PATH": f"{self.file('bin')}:{PATH}"}}
        self.kubelet = ProcessKubelet(self.api, self.file("pods"), images)
        self.kubelet.start()

    def close(self):
        if self.kubelet:
            self.kubelet.close()
        self.control.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def manifest(self, *flags):
        """(exit code, stdout, stderr) of troupe lws manifest demo."""
        done = subprocess.run(
            [self.binary, "lws", "manifest", "demo", "--image", IMAGE, *flags],
            capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def gangs(self, name, *flags, edit=lambda text: text):
        """Applies a manifest and returns its gangs; their pods come in time."""
        code, text, error = self.manifest("--name", name, "--secrets", "generated", "--cpus", "1",
                                          "--drain-timeout", "30", *flags)
        if code:
            raise RuntimeError(error)
        self.control.kubectl("apply", "-f", "-", text=edit(text))
        return Gangs(self, name)


    def stranger(self, name, namespace="default"):
        """A pod that belongs to no gang; it listens on LISTENS."""
        if namespace != "default" and not self.control.succeeds("get", "namespace", namespace):
            self.control.kubectl("create", "namespace", namespace)
            self.control.wait_for("its service account", "-n", namespace, "get", "serviceaccount",
                                  "default")
        pods = f"/api/v1/namespaces/{namespace}/pods"
        self.api.call("POST", pods, {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "c", "image": IMAGE,
                 "command": ["python3", "-m", "http.server", str(LISTENS)]}]}})
        wait_until(f"{name} runs", lambda: self.kubelet.pod(name))
        return lambda: self.api.call("DELETE", f"{pods}/{name}")


class Gangs:
    """The groups of one LeaderWorkerSet."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self.api = cluster, name, cluster.api
        secret = cluster.control.kubectl("get", "secret", f"{name}-api-keys", "-o", "json")
        keys = json.loads(secret)["data"]["keys"]
        self.key = subprocess.run(["base64", "-d"], input=keys.encode(), capture_output=True,
                                  check=True).stdout.decode().strip()

    def pods(self):
        """name -> (uid, ready, restarts) of the pods that stay."""
        listed = self.api.get(f"/api/v1/namespaces/default/pods?labelSelector={NAME_LABEL}"
                              f"%3D{self.name}")
        found = {}
        for pod in listed["items"]:
            status = pod.get("status", {})
            ready = any(c["type"] == "Ready" and c["status"] == "True"
                        for c in status.get("conditions", []))
            if "deletionTimestamp" not in pod["metadata"]:
                restarts = sum(c["restartCount"] for c in status.get("containerStatuses", []))
                found[pod["metadata"]["name"]] = (pod["metadata"]["uid"], ready, restarts)
        return found

    def wait_ready(self, count, patience_s=120):
        def all_ready():
            pods = self.pods()
            return len(pods) == count and all(ready for _, ready, _ in pods.values()) and pods
        return wait_until(f"{count} ready pods of {self.name}", all_ready, patience_s)

    def curl(self, pod, path, *more, patience_s=60):
        """(status, body), asked from beside the pods. Status 0: nobody listens; -1: the connection
        was taken, and no whole answer came."""
        running = self.cluster.kubelet.pod(pod)
        if not running:
            return 0, ""
        done = subprocess.run(
            self.cluster.kubelet.network.on_bridge() +
            ["curl", "-s", "--noproxy", "*", "-m", str(patience_s), "-w", "\n%{http_code}", *more,
             f"http://{running.address}:8000{path}"], capture_output=True, text=True, check=False)
        body, _, status = done.stdout.rpartition("\n")
        if done.returncode:
            return (0 if done.returncode == COULD_NOT_CONNECT else -1), body
        return int(status), body

    def ask(self, pod, prompt="What is a gang?", max_tokens=24, key=None):
        question = {"model": "demo", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        return self.curl(pod, "/v1/completions", "-H", f"Authorization: Bearer {key or self.key}",
                         "-H", "Content-Type: application/json", "-d", json.dumps(question))

    def router(self):
        """The name of the pod of `troupe router`, once it is ready."""
        def ready():
            listed = self.api.get("/api/v1/namespaces/default/pods?labelSelector="
                                  f"app.kubernetes.io/instance%3D{self.name},"
                                  "app.kubernetes.io/component%3Drouter")
            for pod in listed["items"]:
                conditions = pod.get("status", {}).get("conditions", [])
                if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                    return pod["metadata"]["name"]
            return None
        return wait_until(f"the router of {self.name}", ready, 120)

    def connects(self, pod, target, port, patience_s=2):
        """Whether a pod of this cluster opens a connection to a port of another one."""
        kubelet = self.cluster.kubelet
        address = kubelet.pod(target).address
        done = subprocess.run(
            kubelet.network.inside(kubelet.pod(pod).uid) +
            ["timeout", str(patience_s), "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"],
            capture_output=True, check=False)
        return done.returncode == 0

    def text(self, pod, **question):
        status, body = self.ask(pod, **question)
        if status != 200:
            raise RuntimeError(f"{pod}: {status} {body}")
        return json.loads(body)["choices"][0]["text"]

    def processes(self, pod):
        """pid -> command line of what runs in the pod."""
        running = self.cluster.kubelet.pod(pod)
        namespace = self.cluster.kubelet.network.namespaces[running.uid]
        listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True,
                                check=True).stdout.split()
        found = {}
        for pid in listed:
            try:
                with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                    found[int(pid)] = file.read().split("\0")
            except OSError:
                continue  # it has just ended
        return found

    def pid_of_container(self, pod):
        return self.cluster.kubelet.pod(pod).containers[0].process.pid

    def pid_of_rank(self, pod):
        for pid, words in self.processes(pod).items():
            if "rank" in words[1:2]:
                return pid
        raise RuntimeError(f"no rank runs in {pod}")

    def listening(self, pod):
        """Ports on addresses that other pods reach."""
        running = self.cluster.kubelet.pod(pod)
        listed = subprocess.run(
            self.cluster.kubelet.network.inside(running.uid) + ["ss", "-Hltn"],
            capture_output=True, text=True, check=True).stdout
        local = [line.split()[3] for line in listed.splitlines()]
        return {int(at.rpartition(":")[2]) for at in local if not re.match(r"127\.|\[::1\]", at)}

    def log(self, pod, start=0):
        path = self.cluster.kubelet.pod(pod).file(f"troupe.{start}.log")
        if not os.path.exists(path):
            return ""  # it has not started yet
        with open(path, encoding="utf-8") as file:
            return file.read()

    def scale(self, replicas):
        self.api.merge(f"{SETS}/{self.name}/scale", {"spec": {"replicas": replicas}})

    def patch(self, change):
        self.api.merge(f"{SETS}/{self.name}", change)

    def delete(self):
        self.cluster.control.kubectl("delete", "deployment", f"{self.name}-router",
                                     "--ignore-not-found")
        try:
            self.api.call("DELETE", f"{SETS}/{self.name}", {"propagationPolicy": "Foreground"})
        except ApiError as problem:
            if problem.status != 404:
                raise
        wait_until(f"the end of {self.name}", lambda: not self.exist())

    def exist(self):
        try:
            self.api.get(f"{SETS}/{self.name}")
            return True
        except ApiError as problem:
            if problem.status == 404:
                return bool(self.pods())
            raise
