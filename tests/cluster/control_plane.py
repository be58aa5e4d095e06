"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the LeaderWorkerSet controller
with its webhooks, on loopback and free ports, as children of this process.

The programs are those of `scripts/cluster build`.
"""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

from pod_network import GATEWAY

LWS_NAMESPACE = "lws-system"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(what, holds, patience_s=60, every_s=0.1):
    """What `holds` returns once that is true."""
    deadline = time.monotonic() + patience_s
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience_s} s")
        threading.Event().wait(every_s)


def run(*words, text=None, folder=None):
    done = subprocess.run(words, input=text, cwd=folder, capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Certificates:
    """An authority and what it signs, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, mode=0o700)
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                     "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj",
                     "/CN=local-ca")
        self.openssl("genrsa", "-out", "sa.key", "2048")
        self.openssl("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def openssl(self, *words):
        run("openssl", *words, folder=self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return base64.b64encode(file.read()).decode()

    def make(self, name, subject, usage, names=""):
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        with open(self.path(f"{name}.ext"), "w", encoding="utf-8") as out:
            out.write(f"extendedKeyUsage={usage}\n")
            out.write(f"subjectAltName={names}\n" if names else "")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
                     "-CAcreateserial", "-days", "30", "-out", f"{name}.crt", "-extfile",
                     f"{name}.ext")

    def kubeconfig(self, path, server, user):
        """JSON is YAML. `user` is a certificate's name, or {"token": ...}."""
        if isinstance(user, str):
            user = {"client-certificate-data": self.read(f"{user}.crt"),
                    "client-key-data": self.read(f"{user}.key")}
        cluster = {"server": server, "certificate-authority-data": self.read("ca.crt")}
        with open(path, "w", encoding="utf-8", opener=private) as out:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "here",
                       "clusters": [{"name": "here", "cluster": cluster}],
                       "users": [{"name": "me", "user": user}],
                       "contexts": [{"name": "here",
                                     "context": {"cluster": "here", "user": "me"}}]}, out)
        return path


def private(path, flags):
    return os.open(path, flags, 0o600)


class ControlPlane:
    def __init__(self, programs, folder):
        self.programs, self.folder, self.children = programs, folder, []
        os.makedirs(self.file("logs"))
        self.certificates = Certificates(self.file("pki"))
        self.server = f"https://127.0.0.1:{free_port()}"
        self.kubeconfig = None

    def file(self, *names):
        return os.path.join(self.folder, *names)

    def program(self, name):
        return os.path.join(self.programs, name)

    def spawn(self, name, *words, environment=None):
        with open(self.file("logs", f"{name}.log"), "wb") as log:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     cwd=self.folder, start_new_session=True,
                                     env=os.environ | (environment or {}))
        self.children.append((name, child))

    def kubectl(self, *words, text=None):
        return run(self.program("kubectl"), "--kubeconfig", self.kubeconfig, *words, text=text)

    def succeeds(self, *words, text=None):
        try:
            self.kubectl(*words, text=text)
            return True
        except RuntimeError:
            return False

    def wait_for(self, what, *words, text=None):
        def holds():
            for name, child in self.children:
                if child.poll() is not None:
                    raise RuntimeError(f"{name} ended: see {self.file('logs', name + '.log')}")
            return self.succeeds(*words, text=text)
        wait_until(what, holds, 120, 0.2)

    def start(self):
        certificates = self.certificates
        certificates.make("server", "/CN=kube-apiserver", "serverAuth",
                          f"IP:127.0.0.1,IP:{GATEWAY},DNS:kubernetes.default.svc")
        for name, subject in (("admin", "/O=system:masters/CN=admin"),
                              ("manager", "/CN=system:kube-controller-manager"),
                              ("scheduler", "/CN=system:kube-scheduler")):
            certificates.make(name, subject, "clientAuth")
            certificates.kubeconfig(self.file(f"{name}.kubeconfig"), self.server, name)
        self.kubeconfig = self.file("admin.kubeconfig")
        self.start_api_server(self.start_etcd())
        # Before the controllers: garbage collection sees kinds that come later only at its next
        # resync, and until then a LeaderWorkerSet's end would not reach its pods.
        self.kubectl("apply", "--server-side", "-f", self.program("lws-crds.yaml"))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self.start_controllers()
        self.wait_for("default service account", "get", "serviceaccount", "default")
        self.start_lws()

    def start_etcd(self):
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.spawn("etcd", "etcd", "--name", "e", "--data-dir", self.file("etcd"),
                   "--listen-client-urls", client, "--advertise-client-urls", client,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                   "--initial-cluster", f"e={peer}")
        return client

    def start_api_server(self, etcd):
        pki = self.certificates.path
        self.spawn("kube-apiserver", self.program("kube-apiserver"), f"--etcd-servers={etcd}",
                   "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                   f"--secure-port={self.server.rsplit(':', 1)[1]}",
                   "--endpoint-reconciler-type=none", f"--tls-cert-file={pki('server.crt')}",
                   f"--tls-private-key-file={pki('server.key')}",
                   f"--client-ca-file={pki('ca.crt')}", "--authorization-mode=RBAC",
                   "--service-cluster-ip-range=10.96.0.0/16",
                   f"--service-account-key-file={pki('sa.pub')}",
                   f"--service-account-signing-key-file={pki('sa.key')}",
                   "--service-account-issuer=https://kubernetes.default.svc")
        self.wait_for("kube-apiserver", "get", "--raw", "/readyz")

    def start_controllers(self):
        pki = self.certificates.path
        for name, config, more in (
                ("kube-controller-manager", "manager",
                 [f"--service-account-private-key-file={pki('sa.key')}",
                  f"--root-ca-file={pki('ca.crt')}", "--use-service-account-credentials=true"]),
                ("kube-scheduler", "scheduler", [])):
            self.spawn(name, self.program(name), f"--kubeconfig={self.file(config)}.kubeconfig",
                       "--bind-address=127.0.0.1", f"--secure-port={free_port()}",
                       f"--cert-dir={pki(name)}", "--leader-elect=false", *more)

    def start_lws(self):
        """The manager logs in as its own ServiceAccount: its ClusterRole is what is tried."""
        port = free_port()
        self.certificates.make("tls", "/CN=lws-webhook", "serverAuth", "IP:127.0.0.1")
        objects, hooks = self.lws_objects(port)
        self.kubectl("apply", "--server-side", "-f", "-", text=objects)
        self.kubectl("apply", "-f", "-", text=hooks)
        token = self.kubectl("-n", LWS_NAMESPACE, "create", "token", "lws-controller-manager")
        config = self.certificates.kubeconfig(self.file("lws.kubeconfig"), self.server,
                                              {"token": token.strip()})
        with open(self.file("lws.json"), "w", encoding="utf-8") as out:
            json.dump({"apiVersion": "config.lws.x-k8s.io/v1alpha1", "kind": "Configuration",
                       "leaderElection": {"leaderElect": False},
                       "internalCertManagement": {"enable": False},
                       "webhook": {"host": "127.0.0.1", "port": port,
                                   "certDir": self.certificates.folder},
                       "health": {"healthProbeBindAddress": f"127.0.0.1:{free_port()}"},
                       "metrics": {"bindAddress": f"127.0.0.1:{free_port()}"}}, out)
        self.spawn("lws-manager", self.program("lws-manager"), f"--config={self.file('lws.json')}",
                   environment={"KUBECONFIG": config})
        pod = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
        probe = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
                 "metadata": {"name": "probe"},
                 "spec": {"leaderWorkerTemplate": {"size": 1, "workerTemplate": pod}}}
        self.wait_for("lws-manager", "create", "--dry-run=server", "-f", "-",
                      text=json.dumps(probe))

    def lws_objects(self, port):
        """All of LWS's own manifest but its Deployment; its webhooks at a port of this machine."""
        with open(self.program("lws-default.yaml"), encoding="utf-8") as file:
            documents = re.split(r"(?m)^---\n", file.read())
        objects, hooks = [], []
        for document in documents:
            kind = re.search(r"(?m)^kind: (\w+)", document).group(1)
            if kind.endswith("WebhookConfiguration"):
                hooks.append(re.sub(
                    r"    service:\n      name: \S+\n      namespace: \S+\n      path: (\S+)\n",
                    rf"    url: https://127.0.0.1:{port}\1\n"
                    f"    caBundle: {self.certificates.read('ca.crt')}\n", document))
            elif kind not in ("Deployment", "CustomResourceDefinition"):
                objects.append(document)
        return "---\n".join(objects), "---\n".join(hooks)

    def close(self):
        for _, child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
