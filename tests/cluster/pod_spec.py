"""What a pod's specification says of environment and volumes, as kubelet reads it."""

import base64
import os
import re

from api import ApiError

# $(NAME) is replaced where it is known, $$ is a dollar sign.
REFERENCE = re.compile(r"\$(\$|\(([^)]+)\))")


def expand(text, variables):
    def replaced(match):
        if match.group(1) == "$":
            return "$"
        return variables.get(match.group(2), match.group(0))
    return REFERENCE.sub(replaced, text)


def field(pod, path, address):
    metadata = pod["metadata"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return metadata.get(keyed.group(1), {}).get(keyed.group(2), "")
    return {"metadata.name": metadata["name"], "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"], "spec.nodeName": pod["spec"].get("nodeName", ""),
            "status.podIP": address}[path]


def read_map(api, namespace, kind, name, optional=False):
    """The contents of a ConfigMap or Secret, as bytes."""
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    except ApiError as problem:
        if problem.status == 404 and optional:
            return {}
        raise
    data = found.get("data") or {}
    if kind == "secrets":
        return {key: base64.b64decode(value) for key, value in data.items()}
    return {key: value.encode() for key, value in data.items()}


def environment(api, pod, container, address):
    """The variables in the order in which they refer to each other."""
    namespace = pod["metadata"]["namespace"]
    variables = {}
    for entry in container.get("env", []):
        name, source = entry["name"], entry.get("valueFrom")
        if not source:
            variables[name] = expand(entry.get("value", ""), variables)
        elif "fieldRef" in source:
            variables[name] = field(pod, source["fieldRef"]["fieldPath"], address)
        else:
            reference, kind = ((source["secretKeyRef"], "secrets") if "secretKeyRef" in source
                               else (source["configMapKeyRef"], "configmaps"))
            data = read_map(api, namespace, kind, reference["name"], reference.get("optional"))
            variables[name] = data[reference["key"]].decode()
    return variables


def projected(api, pod, source):
    """file -> content of one source of a projected volume."""
    namespace = pod["metadata"]["namespace"]
    if "serviceAccountToken" in source:
        token = source["serviceAccountToken"]
        account = pod["spec"]["serviceAccountName"]
        made = api.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": token.get("expirationSeconds", 3600),
                     "boundObjectRef": {"apiVersion": "v1", "kind": "Pod",
                                        "name": pod["metadata"]["name"],
                                        "uid": pod["metadata"]["uid"]}}})
        return {token["path"]: made["status"]["token"].encode()}
    if "downwardAPI" in source:
        return {item["path"]: field(pod, item["fieldRef"]["fieldPath"], None).encode()
                for item in source["downwardAPI"]["items"]}
    kind = "secrets" if "secret" in source else "configmaps"
    reference = source.get("secret") or source["configMap"]
    data = read_map(api, namespace, kind, reference["name"], reference.get("optional"))
    items = reference.get("items") or [{"key": key, "path": key} for key in data]
    return {item["path"]: data[item["key"]] for item in items}


def write_files(folder, files):
    for file, content in files.items():
        with open(os.path.join(folder, file), "wb") as out:
            out.write(content)


def make_volume(api, pod, volume, folder):
    """The folder on this machine that stands for a volume."""
    if "hostPath" in volume:
        return volume["hostPath"]["path"]
    at = os.path.join(folder, "volumes", volume["name"])
    os.makedirs(at, exist_ok=True)
    for source in volume.get("projected", {}).get("sources", []):
        write_files(at, projected(api, pod, source))
    for key, kind, name in (("secret", "secrets", "secretName"),
                            ("configMap", "configmaps", "name")):
        if key not in volume:
            continue
        source = volume[key]
        write_files(at, read_map(api, pod["metadata"]["namespace"], kind, source[name],
                                 source.get("optional")))
    return at
