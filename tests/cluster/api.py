"""A small client of the Kubernetes API: calls, and lists that are kept up to date by a watch."""

import base64
import http.client
import json
import ssl
import sys
import tempfile
import threading
import urllib.parse


class ApiError(Exception):
    """The server's answer to a call that it refused."""

    def __init__(self, status, body):
        super().__init__(f"HTTP {status} {body[:300]}")
        self.status = status


class Api:
    """Calls over one connection a thread. `kubeconfig` is JSON, as this folder writes it."""

    def __init__(self, kubeconfig):
        with open(kubeconfig, encoding="utf-8") as file:
            config = json.load(file)
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        url = urllib.parse.urlparse(cluster["server"])
        self.host, self.port = url.hostname, url.port
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]) + b"\n")
            pair.flush()
            self.context.load_cert_chain(pair.name)
        self.local = threading.local()

    def connect(self, timeout_s=30):
        return http.client.HTTPSConnection(self.host, self.port, context=self.context,
                                           timeout=timeout_s)

    def call(self, method, path, body=None, content_type="application/json"):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if data else {})
        for last in (False, True):
            connection = getattr(self.local, "connection", None) or self.connect()
            self.local.connection = connection
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.local.connection = None
                if last:
                    raise
        if answer.status >= 400:
            raise ApiError(answer.status, text.decode(errors="replace"))
        return json.loads(text) if text else None

    def get(self, path):
        return self.call("GET", path)

    def merge(self, path, body):
        return self.call("PATCH", path, body, "application/merge-patch+json")


class Informer(threading.Thread):
    """items[(namespace, name)] of one path; on_event(type, object) for each change."""

    def __init__(self, api, path, stop, on_event=None):
        super().__init__(daemon=True)
        self.api, self.path, self.stop, self.on_event = api, path, stop, on_event
        self.items, self.synced = {}, threading.Event()

    def emit(self, kind, item):
        key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        if kind == "DELETED":
            self.items.pop(key, None)
        else:
            self.items[key] = item
        if self.on_event:
            self.on_event(kind, item)

    def list_once(self):
        listed = self.api.get(self.path)
        there = set()
        for item in listed["items"]:
            there.add((item["metadata"].get("namespace", ""), item["metadata"]["name"]))
            self.emit("ADDED", item)
        for key in [key for key in self.items if key not in there]:
            self.emit("DELETED", self.items[key])
        self.synced.set()
        return listed["metadata"]["resourceVersion"]

    def follow(self, version):
        connection = self.api.connect(timeout_s=None)
        connection.request("GET", f"{self.path}?watch=1&allowWatchBookmarks=true"
                           f"&timeoutSeconds=290&resourceVersion={version}",
                           headers={"Accept": "application/json"})
        for line in connection.getresponse():
            event = json.loads(line)
            if event["type"] == "ERROR":
                break
            if event["type"] != "BOOKMARK":
                self.emit(event["type"], event["object"])
        connection.close()

    def run(self):
        while not self.stop.is_set():
            try:
                self.follow(self.list_once())
            except (OSError, http.client.HTTPException, ApiError, ValueError) as problem:
                if not self.stop.is_set():
                    print(f"watch {self.path}: {problem!r:.200}", file=sys.stderr)
                self.stop.wait(1)
