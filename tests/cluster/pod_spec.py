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


def make_volume(api, pod, volume, folder):
    """The folder on this machine that stands for a volume."""
    if "hostPath" in volume:
        return volume["hostPath"]["path"]
    at = os.path.join(folder, "volumes", volume["name"])
    os.makedirs(at, exist_ok=True)
    for key, kind, name in (("secret", "secrets", "secretName"),
                            ("configMap", "configmaps", "name")):
        if key not in volume:
            continue
        source = volume[key]
        data = read_map(api, pod["metadata"]["namespace"], kind, source[name],
                        source.get("optional"))
        for file, content in data.items():
            with open(os.path.join(at, file), "wb") as out:
                out.write(content)
    return at
