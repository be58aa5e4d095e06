"""A container as a process: its view of files and network, its restarts, its status."""

import os
import signal
import subprocess
import time

from pod_spec import environment, expand

# A copy-on-write view of this machine's files with empty /run and /tmp, and the pod's volumes.
# Arguments: FOLDER COUNT (SOURCE TARGET ro|rw)*COUNT COMMAND...
OVERLAY = r"""
set -e
o=$1 n=$2; shift 2
mount -t tmpfs tmpfs "$o"; mkdir "$o/up" "$o/work" "$o/root"; r=$o/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$o/up,workdir=$o/work" "$r"
for d in dev proc sys; do mount --rbind "/$d" "$r/$d"; done
mount -t tmpfs tmpfs "$r/run"; mount -t tmpfs tmpfs "$r/tmp"
for ((i = 0; i < n; i++)); do
  t=$r$(chroot "$r" readlink -m "$2")  # /var/run is a link
  if [ -d "$1" ]; then mkdir -p "$t"; else mkdir -p "${t%/*}"; [ -e "$t" ] || : >"$t"; fi
  mount --bind "$1" "$t"; [ "$3" = rw ] || mount -o remount,bind,ro "$t"
  shift 3
done
exec chroot "$r" "$@"
"""

BACK_OFF_FIRST_S, BACK_OFF_MAX_S, BACK_OFF_FORGOTTEN_S = 10, 300, 600  # kubelet's


def timestamp():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Container:
    """One entry of a pod's containers. Only the pod's own thread calls it."""

    def __init__(self, pod, spec):
        self.pod, self.spec, self.name = pod, spec, spec["name"]
        self.process, self.restarts, self.back_off_s, self.not_before = None, 0, 0, 0
        self.state, self.last = {"waiting": {"reason": "ContainerCreating"}}, {}
        self.ready = self.started = False
        self.kill_at, self.probes, self.started_s, self.started_at = None, {}, 0, ""

    def environment(self):
        host = self.pod.spec.get("hostname") or self.pod.name
        own = environment(self.pod.node.api, self.pod.object, self.spec, self.pod.address)
        return {"HOSTNAME": host, "HOME": "/"} | self.pod.node.image(self.spec["image"]) | own

    def wrap(self, command):
        """`command` in the pod's network and in the container's file system."""
        binds = [(self.pod.file("resolv.conf"), "/etc/resolv.conf", "ro"),
                 (self.pod.file("hosts"), "/etc/hosts", "ro")]
        for mount in self.spec.get("volumeMounts", []):
            mode = "ro" if mount.get("readOnly") else "rw"
            binds.append((self.pod.volumes[mount["name"]], mount["mountPath"], mode))
        root = self.pod.file(f"root-{self.name}")
        os.makedirs(root, exist_ok=True)
        flat = [word for bind in binds for word in bind]
        return (self.pod.node.network.inside(self.pod.uid) +
                ["unshare", "-m", "bash", "-c", OVERLAY, "overlay", root, str(len(binds))] + flat +
                command)

    def words(self, variables):
        words = (self.spec.get("command") or []) + (self.spec.get("args") or [])
        return [expand(word, variables) for word in words]

    def start(self):
        variables = self.environment()
        with open(self.pod.file(f"{self.name}.{self.restarts}.log"), "ab") as log:
            self.process = subprocess.Popen(
                self.wrap(self.words(variables)), env=variables, cwd=self.pod.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.started_s, self.started_at, self.kill_at = time.monotonic(), timestamp(), None
        self.state, self.probes = {"running": {"startedAt": self.started_at}}, {}
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec

    def run_here(self, command, timeout_s):
        """Whether a command in the container ends with 0 in time: an exec probe or hook."""
        try:
            done = subprocess.run(self.wrap(command), env=self.environment(), cwd=self.pod.folder,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=timeout_s, check=False)
            return done.returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def signal(self, number, group=False):
        if self.process and self.process.poll() is None:
            try:
                (os.killpg if group else os.kill)(self.process.pid, number)
            except ProcessLookupError:
                pass

    def note_exit(self):
        status = self.process.returncode
        ended = {"exitCode": 128 - status if status < 0 else status,
                 "reason": "Error" if status else "Completed", "startedAt": self.started_at,
                 "finishedAt": timestamp(), "containerID": f"process://{self.process.pid}"}
        try:  # what it has left behind
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process, self.ready, self.started = None, False, False
        self.state = {"terminated": ended}
        if time.monotonic() - self.started_s > BACK_OFF_FORGOTTEN_S:
            self.back_off_s = 0
        self.not_before = time.monotonic() + self.back_off_s
        if self.back_off_s:
            self.state = {"waiting": {"reason": "CrashLoopBackOff"}}
        self.back_off_s = min(BACK_OFF_MAX_S, self.back_off_s * 2 or BACK_OFF_FIRST_S)
        self.last = {"terminated": ended}

    def keep(self):
        """Starts it again when it has ended, the first time at once, then with a back-off."""
        if self.process and self.process.poll() is None:
            if self.kill_at and time.monotonic() > self.kill_at:
                self.signal(signal.SIGKILL, group=True)
            return
        if self.process:
            self.note_exit()
        elif time.monotonic() >= self.not_before:
            self.restarts += 1
            self.start()

    def status(self):
        image = self.spec["image"]
        return {"name": self.name, "image": image, "imageID": f"process://{image}",
                "restartCount": self.restarts, "ready": self.ready, "started": self.started,
                "state": self.state, "lastState": self.last}
