#!/usr/bin/env python3
"""Gangs under the real LeaderWorkerSet controller, on a real control plane, with real requests.

    scripts/cluster test [NAME...]     e.g. GangsOnACluster.test_answer_with_the_bits_of_generate

Needs root (network namespaces), etcd, and the programs of `scripts/cluster build`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import unittest

from control_plane import wait_until
from gangs import LISTENS, Cluster

QUESTION = "What is a gang?"
OPENED = {8000, 8472, *range(8473, 8489)}  # by the manifest's NetworkPolicy


class GangsOnACluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(os.environ["TROUPE_CLUSTER_PROGRAMS"], os.environ["TROUPE_BINARY"])
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        generated = subprocess.run(
            [cls.cluster.binary, "generate", "demo", "--prompt", QUESTION, "--max-tokens", "24"],
            capture_output=True, text=True, check=True).stdout
        cls.answer = generated.rstrip("\n")

    def gangs(self, name, *flags, **more):
        gangs = self.cluster.gangs(name, *flags, **more)
        self.addCleanup(gangs.delete)
        return gangs

    def expect_answer(self, gangs, pod, patience_s=60):
        wait_until(f"an answer of {pod}", lambda: gangs.ask(pod)[0] == 200, patience_s)
        self.assertEqual(gangs.text(pod).strip(), self.answer.strip())

    def test_answer_with_the_bits_of_generate(self):
        gangs = self.gangs("llm", "--replicas", "2")
        gangs.wait_ready(4)
        for pod in ("llm-0", "llm-1"):
            self.expect_answer(gangs, pod)
        self.assertEqual(gangs.ask("llm-0", key="sk-0000000000000000")[0], 401)
        for pod in ("llm-0", "llm-0-1"):
            self.assertLessEqual(gangs.listening(pod), OPENED)
        self.assertEqual(gangs.listening("llm-0") & {8000, 8472}, {8000, 8472})

    def test_are_closed_to_strangers(self):
        """The opened ports suffice for the gang, and nobody else reaches any of them but HTTP."""
        if not self.cluster.kubelet.filters:
            self.skipTest("no packet filter (nftables)")
        gangs = self.gangs("closed")
        gangs.wait_ready(2)
        self.expect_answer(gangs, "closed-0")
        self.assertGreaterEqual(gangs.listening("closed-0"), {8000, 8472, 8488})
        self.addCleanup(self.cluster.stranger("neighbour"))
        self.addCleanup(self.cluster.stranger("foreigner", "elsewhere"))
        wait_until("HTTP for the namespace", lambda: gangs.connects("neighbour", "closed-0", 8000))
        for stranger, ports in (("neighbour", (8472, 8473, 8488)),
                                ("foreigner", (8000, 8472, 8473, 8488))):
            for port in ports:
                self.assertFalse(gangs.connects(stranger, "closed-0", port), (stranger, port))
        # Nor do the members reach anybody but each other.
        wait_until("a stranger's port",
                   lambda: gangs.connects("foreigner", "neighbour", LISTENS))
        self.assertFalse(gangs.connects("closed-0", "neighbour", LISTENS))
        self.assertTrue(gangs.connects("closed-0-1", "closed-0", 8472))
        self.assertFalse(gangs.connects("closed-0-1", "closed-0", 8000))
        # What comes later is let in as the first ones were.
        os.kill(gangs.pid_of_rank("closed-0-1"), signal.SIGKILL)
        self.expect_answer(gangs, "closed-0")

    def test_take_their_sizes_from_the_group(self):
        def without_sizes(text):
            return re.sub(r"(?m)^ *- --(tensor|pipeline)-parallel-size=\d+\n", "", text)
        gangs = self.gangs("sized", edit=without_sizes)
        gangs.wait_ready(2)
        self.expect_answer(gangs, "sized-0")
        self.assertIn("member 0 of a group of 2 pods: --tensor-parallel-size 2 ",
                      gangs.log("sized-0"))

    def test_mend_a_lost_rank_without_lws_seeing_it(self):
        gangs = self.gangs("ranks")
        before = gangs.wait_ready(2)
        for pod in ("ranks-0-1", "ranks-0"):
            os.kill(gangs.pid_of_rank(pod), signal.SIGKILL)
            self.expect_answer(gangs, "ranks-0")
        after = gangs.wait_ready(2)
        self.assertEqual(after, before)

    def test_keep_the_pods_of_a_group_without_recreation(self):
        gangs = self.gangs("none")
        before = gangs.wait_ready(2)
        for pod in ("none-0-1", "none-0"):
            os.kill(gangs.pid_of_container(pod), signal.SIGKILL)
            wait_until("a restart", lambda pod=pod: gangs.pods()[pod][2] == 1)
            self.expect_answer(gangs, "none-0")
        after = gangs.wait_ready(2)
        self.assertEqual({name: uid for name, (uid, _, _) in after.items()},
                         {name: uid for name, (uid, _, _) in before.items()})

    def test_come_again_where_lws_recreates_the_group(self):
        for policy in ("RecreateGroupOnPodRestart", "RecreateGroupAfterStart"):
            name = policy[-7:].lower()
            gangs = self.gangs(name, "--restart-policy", policy)
            before = gangs.wait_ready(2)
            for pod in (f"{name}-0-1", f"{name}-0"):
                os.kill(gangs.pid_of_container(pod), signal.SIGKILL)

                def is_new(old=before):
                    pods = gangs.pods()
                    return len(pods) == 2 and all(pods[p][0] != old[p][0] and pods[p][1]
                                                  for p in pods) and pods
                before = wait_until(f"a new group ({policy})", is_new, 120)
                self.expect_answer(gangs, f"{name}-0")

    def test_scale_by_the_subresource(self):
        gangs = self.gangs("scaled")
        gangs.wait_ready(2)
        gangs.scale(3)
        gangs.wait_ready(6)
        self.expect_answer(gangs, "scaled-2")
        gangs.scale(1)
        wait_until("two groups less", lambda: len(gangs.pods()) == 2)
        self.expect_answer(gangs, "scaled-0")

    def test_start_in_any_order(self):
        for first, last in (("order-0", "order-0-1"), ("order-0-1", "order-0")):
            self.cluster.kubelet.hold(last)
            gangs = self.gangs("order", "--subdomain-policy", "UniquePerReplica")
            wait_until(f"{first} runs", lambda first=first: self.cluster.kubelet.pod(first))
            # It waits, and says for what.
            wait_until("a line of what it waits for",
                       lambda first=first: "wait" in gangs.log(first))
            self.cluster.kubelet.release(last)
            pods = gangs.wait_ready(2)
            self.assertEqual([restarts for _, _, restarts in pods.values()], [0, 0])
            self.expect_answer(gangs, "order-0")
            gangs.delete()

    def test_have_a_stage_in_each_subgroup(self):
        gangs = self.gangs("stages", "--nodes", "4", "--subgroup-size", "2")
        gangs.wait_ready(4)
        self.expect_answer(gangs, "stages-0")
        self.assertIn("--pipeline-parallel-size=2",
                      gangs.processes("stages-0-3")[gangs.pid_of_container("stages-0-3")])

    def test_lose_no_request_in_a_rolling_update(self):
        """A client that asks another leader where one is not ready, as a Service's would."""
        gangs = self.gangs("rolling", "--replicas", "2", "--env", "VERSION=1")
        before = gangs.wait_ready(4)
        done, broken, over = [0], [], threading.Event()

        def ask_all_the_time():
            while not over.is_set():
                for pod, (_, ready, _) in sorted(gangs.pods().items()):
                    if not ready or pod.count("-") != 1:
                        continue
                    status, body = gangs.ask(pod, max_tokens=48)
                    if status == 200:
                        done[0] += 1
                    elif status not in (0, 503):  # refused before it had begun
                        broken.append((pod, status, body))

        client = threading.Thread(target=ask_all_the_time)
        client.start()
        try:
            self.roll("rolling", gangs, before)
        finally:
            over.set()
            client.join()
        self.assertEqual(broken, [])
        self.assertGreater(done[0], 10)
        self.expect_answer(gangs, "rolling-0")

    def roll(self, name, gangs, before):
        """To another version, until every pod is a new one and ready."""
        code, text, error = self.cluster.manifest(
            "--name", name, "--replicas", "2", "--cpus", "1", "--drain-timeout", "30",
            "--env", "VERSION=2")
        self.assertEqual(code, 0, error)
        self.cluster.control.kubectl("apply", "-f", "-", text=text)

        def are_new():
            pods = gangs.pods()
            return set(pods) == set(before) and all(
                pods[p][0] != before[p][0] and pods[p][1] for p in pods)
        wait_until("all pods new and ready", are_new, 240)

    def test_lose_no_request_behind_a_router(self):
        """Pods are killed and replaced; each answer comes, whole, from the one address."""
        gangs = self.gangs("routed", "--replicas", "2", "--router", "1", "--env", "VERSION=1")
        before = gangs.wait_ready(4)
        router = gangs.router()
        self.expect_answer(gangs, router)
        self.assertLessEqual(gangs.listening(router), {8000})
        answers, over = [], threading.Event()

        def ask_all_the_time():
            while not over.is_set():
                answers.append(gangs.ask(router, max_tokens=48))

        def more(count=20):
            had = len(answers)
            wait_until("more answers", lambda: len(answers) >= had + count)

        clients = [threading.Thread(target=ask_all_the_time) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for pod in ("routed-0", "routed-1-1", "routed-0-1"):
                more()
                os.kill(gangs.pid_of_container(pod), signal.SIGKILL)
                wait_until("a restart", lambda pod=pod: gangs.pods()[pod][2] == 1)
                gangs.wait_ready(4)
            more()
            self.roll("routed", gangs, before)
            more()
        finally:
            over.set()
            for client in clients:
                client.join()
        self.assertEqual([answer for answer in answers if answer[0] != 200], [])
        texts = {json.loads(body)["choices"][0]["text"] for _, body in answers}
        self.assertEqual(len(texts), 1, texts)


def put(tree, path, value):
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = value


class Manifests(unittest.TestCase):
    """What is printed, the API server and LWS's webhook take; what they refuse is not printed."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(os.environ["TROUPE_CLUSTER_PROGRAMS"], os.environ["TROUPE_BINARY"])
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.control.start()
        cls.cluster.control.kubectl("apply", "--server-side", "-f",
                                    cls.cluster.control.program("more-crds.yaml"))
        cls.cluster.control.kubectl("wait", "--for=condition=Established", "crd", "--all",
                                    "--timeout=60s")

    def take(self, text):
        self.cluster.control.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-",
                                     text=text)

    def good_set(self):
        code, text, error = self.cluster.manifest("--name", "llm", "--only", "core")
        self.assertEqual(code, 0, error)
        alone = next(d for d in text.split("---\n") if "kind: LeaderWorkerSet" in d)
        return json.loads(self.cluster.control.kubectl("create", "--dry-run=client", "-o", "json",
                                                       "-f", "-", text=alone))

    def test_are_taken(self):
        for flags in ((), ("--only", "core"), ("--nodes", "1"), ("--nodes", "5"),
                      ("--nodes", "8", "--subgroup-size", "4"), ("--data-plane", "ucx"),
                      ("--gpus", "1"), ("--model-source", "pvc:weights"),
                      ("--model-source", "image:models.test/m:1"),
                      ("--model-source", "hostPath:/models"), ("--max-surge", "25%"),
                      ("--model-source", "init:models.test/fetch:1"),
                      ("--max-unavailable", "1", "--max-surge", "0", "--partition", "1"),
                      ("--exclusive-topology", "rack", "--subdomain-policy", "UniquePerReplica"),
                      ("--restart-policy", "RecreateGroupAfterStart"), ("--env", "A=true"),
                      ("--restart-policy", "RecreateGroupOnPodRestart"),
                      ("--router", "2"), ("--router", "1", "--only", "core"),
                      ("--router", "1", "--namespace", "kube-public"),
                      ("--secrets", "cert-manager"), ("--pod-monitor",),
                      ("--autoscale", "1-8:4"), ("--inference-pool", "picker"),
                      ("--gpus", "1", "--device-class", "gpu.example.com"),
                      ("--queue", "team-a")):
            with self.subTest(flags=flags):
                secrets = () if "--secrets" in flags else ("--secrets", "generated")
                code, text, error = self.cluster.manifest("--name", "llm", *secrets, *flags)
                self.assertEqual(code, 0, error)
                self.take(text)

    def test_that_are_refused_are_not_printed(self):
        """(flags, the same change made to a good manifest)"""
        rollout = "spec.rolloutStrategy.rollingUpdateConfiguration"
        group = "spec.leaderWorkerTemplate"
        for flags, path, value in (
                (("--name", "LLM"), "metadata.name", "LLM"),
                (("--name", "1llm"), "metadata.name", "1llm"),
                (("--nodes", "0"), f"{group}.size", 0),
                (("--replicas", "-1"), "spec.replicas", -1),
                (("--max-surge", "0"), f"{rollout}.maxSurge", 0),
                (("--max-surge", "101%"), f"{rollout}.maxSurge", "101%"),
                (("--max-unavailable", "one"), f"{rollout}.maxUnavailable", "one"),
                (("--partition", "-1"), f"{rollout}.partition", -1),
                (("--restart-policy", "Always"), f"{group}.restartPolicy", "Always"),
                (("--startup-policy", "Later"), "spec.startupPolicy", "Later"),
                (("--subdomain-policy", "shared"), "spec.networkConfig.subdomainPolicy", "shared"),
                (("--subgroup-size", "3", "--tensor-parallel-size", "2"), f"{group}.subGroupPolicy",
                 {"subGroupPolicyType": "LeaderWorker", "subGroupSize": 3})):
            with self.subTest(flags=flags):
                name = () if "--name" in flags else ("--name", "llm")
                code, text, _ = self.cluster.manifest(*name, *flags)
                self.assertNotEqual(code, 0)
                self.assertEqual(text, "")
                changed = self.good_set()
                put(changed, path, value)
                with self.assertRaises(RuntimeError):
                    self.take(json.dumps(changed))


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("cluster_test: needs root: pods are network namespaces")
    unittest.main(verbosity=2, warnings="ignore")
