"""NetworkPolicies of the API server, enforced: a packet filter in each pod's network namespace,
as a network plug-in has it on the pod's cable."""

import json
import subprocess

from pod_network import DNS_ADDRESS, GATEWAY

POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
KUBE_DNS = {"k8s-app": "kube-dns"}  # no pod here: the node answers names


def available():
    """Whether this kernel filters packets for us."""
    try:
        done = subprocess.run(["unshare", "-n", "nft", "add", "table", "inet", "probe"],
                              capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


def matches(selector, labels):
    unknown = set(selector) - {"matchLabels"}
    if unknown:
        raise ValueError(f"a selector with {unknown} is not known here")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class Policies:
    """`pods` and `policies` are informers; `address_of(pod)` is None before it has one."""

    def __init__(self, pods, policies, address_of):
        self.pods, self.policies, self.address_of = pods, policies, address_of

    def peers(self, entry, namespace):
        """Addresses of one entry of `from` or `to`."""
        if "namespaceSelector" in entry:
            if entry.get("podSelector", {}).get("matchLabels") == KUBE_DNS:
                return {DNS_ADDRESS}
            raise ValueError(f"the peers {json.dumps(entry)} are not known here")
        found = (self.address_of(pod) for pod in list(self.pods.items.values())
                 if pod["metadata"]["namespace"] == namespace
                 and matches(entry["podSelector"], pod["metadata"].get("labels", {})))
        return {address for address in found if address}

    def allowed(self, rules, side, where, namespace):
        """Lines of a chain. `side`: from or to; `where`: saddr or daddr."""
        for rule in rules:
            peers = ""
            if rule.get(side):
                addresses = set().union(*(self.peers(entry, namespace) for entry in rule[side]))
                if not addresses:
                    continue
                peers = f"ip {where} {{ {', '.join(sorted(addresses))} }} "
            for port in rule.get("ports") or [None]:
                if port is None:
                    yield f"{peers}accept"
                    continue
                last = f"-{port['endPort']}" if "endPort" in port else ""
                yield f"{peers}{port['protocol'].lower()} dport {port['port']}{last} accept"

    def chain(self, pod, kind, lines):
        metadata = pod["metadata"]
        namespace, labels = metadata["namespace"], metadata.get("labels", {})
        chosen = [p["spec"] for p in list(self.policies.items.values())
                  if p["metadata"]["namespace"] == namespace and kind in p["spec"]["policyTypes"]
                  and matches(p["spec"]["podSelector"], labels)]
        ingress = kind == "Ingress"
        hook, side, where = (("input", "from", "saddr") if ingress else ("output", "to", "daddr"))
        lines.append(f"chain {hook} {{ type filter hook {hook} priority 0; "
                     f"policy {'drop' if chosen else 'accept'};")
        lines += ["ct state established,related accept", 'iif "lo" accept' if ingress else
                  'oif "lo" accept', f"ip {where} {GATEWAY} accept"]  # the node: probes, the API
        for spec in chosen:
            lines += self.allowed(spec.get(kind.lower(), []), side, where, namespace)
        lines.append("}")

    def rules(self, pod):
        lines = ["table inet pod", "delete table inet pod", "table inet pod {"]
        self.chain(pod, "Ingress", lines)
        self.chain(pod, "Egress", lines)
        return "\n".join(lines + ["}", ""])


def apply(inside, rules):
    done = subprocess.run(inside + ["nft", "-f", "-"], input=rules, text=True,
                          capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"nft: {done.stderr.strip()}\n{rules}")
