// LeaderWorkerSets as people write them: what is read, what is named as meaningless here, what is
// refused and where.
#include "lws/workload.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "lws/manifest.hpp"

namespace troupe::lws {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string head = R"(apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  name: vllm
spec:
)";

// A manifest as serving projects publish it: a shell, a TCP probe, GPUs, shared memory.
const std::string published = head + R"Y(  replicas: 2
  leaderWorkerTemplate:
    size: 3
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      metadata:
        labels:
          role: leader
      spec:
        containers:
          - name: vllm-leader
            image: vllm/vllm-openai:latest
            env:
              - name: HUGGING_FACE_HUB_TOKEN
                value: abc
            command:
              - sh
              - -c
              - "start $(LWS_GROUP_SIZE)"
            resources:
              limits:
                nvidia.com/gpu: "8"
            ports:
              - containerPort: 8080
            readinessProbe:
              tcpSocket:
                port: 8080
              initialDelaySeconds: 15
            volumeMounts:
              - mountPath: /dev/shm
                name: dshm
        volumes:
          - name: dshm
            emptyDir:
              medium: Memory
    workerTemplate:
      spec:
        nodeSelector:
          a: b
        containers:
          - name: vllm-worker
            image: vllm/vllm-openai:latest
            command: ["sh", "-c", "work"]
---
apiVersion: v1
kind: Service
metadata:
  name: vllm-leader
spec:
  ports:
    - name: http
      port: 80
      targetPort: 8080
  selector:
    leaderworkerset.sigs.k8s.io/name: vllm
    role: leader
)Y";

TEST(Workload, ReadsWhatProjectsPublish) {
  const auto of = read_workload(published);
  ASSERT_TRUE(of) << of.error().message;
  EXPECT_EQ(of->name, "vllm");
  EXPECT_EQ(of->replicas, 2);
  EXPECT_EQ(of->size, 3);
  EXPECT_EQ(of->restart, restart_rule::on_pod_restart);
  EXPECT_EQ(of->http_port, 8080);
  const container_spec& leader = of->leader.containers.at(0);
  EXPECT_THAT(leader.words, ElementsAre("sh", "-c", "start $(LWS_GROUP_SIZE)"));
  ASSERT_TRUE(leader.readiness);
  EXPECT_TRUE(leader.readiness->tcp);
  EXPECT_EQ(leader.readiness->initial_delay_s, 15);
  EXPECT_EQ(leader.mounts.at(0).path, "/dev/shm");
  EXPECT_EQ(of->worker.containers.at(0).name, "vllm-worker");
  EXPECT_THAT(of->not_honoured,
              ElementsAre("spec.leaderWorkerTemplate.workerTemplate.spec.nodeSelector",
                          "spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].resources"));
}

TEST(Workload, WithoutALeaderTemplateAllPodsAreAlike) {
  const auto of = read_workload(head + R"(  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        containers:
        - {name: c, command: [run], args: [now]}
)");
  ASSERT_TRUE(of) << of.error().message;
  EXPECT_THAT(of->leader.containers.at(0).words, ElementsAre("run", "now"));
  EXPECT_EQ(of->replicas, 1);
  EXPECT_EQ(of->max_unavailable, 1);
}

// What `troupe lws manifest` prints runs without Kubernetes too.
TEST(Workload, ReadsOurOwnManifest) {
  manifest_options options{.name = "llm", .image = "i"};
  options.memory_bytes = 1 << 30;
  options.nodes = 4;
  options.tensor_parallel_size = 4;
  options.subgroup_size = 4;
  options.routers = 1;
  options.secrets = secret_source::generated;
  options.texts = {"sk-key", "cert\n", "key\n", "ca\n"};
  const auto files = make_manifest(options);
  ASSERT_TRUE(files);
  std::string text;
  for (const manifest_file& file : *files) text += "---\n" + file.yaml;
  const auto of = read_workload(text);
  ASSERT_TRUE(of) << of.error().message;
  EXPECT_EQ(of->size, 4);
  EXPECT_EQ(of->subgroup_size, 4);
  EXPECT_EQ(of->http_port, 8000);
  EXPECT_EQ(of->restart, restart_rule::none);
  EXPECT_EQ(of->leader.grace_s, 120);
  const container_spec& leader = of->leader.containers.at(0);
  EXPECT_EQ(leader.pre_stop_s, 5);
  EXPECT_EQ(leader.startup->path, "/health");
  EXPECT_THAT(of->worker.containers.at(0).readiness->command, ElementsAre("troupe", "health"));
  bool found = false;
  for (const volume_spec& volume : of->leader.volumes) {
    if (volume.name != "gang") continue;
    found = true;
    EXPECT_EQ(volume.files.at("tls.key"), "key\n");
  }
  EXPECT_TRUE(found);
  EXPECT_THAT(of->not_honoured, Contains("Deployment llm-router"));
}

TEST(Workload, TheRevisionIsThatOfTheTemplatesAlone) {
  const auto of = [](const std::string& text) { return read_workload(text)->revision; };
  std::string more = published;
  more.replace(more.find("replicas: 2"), 11, "replicas: 1");
  EXPECT_EQ(of(published), of(more));
  std::string other = published;
  other.replace(other.find("value: abc"), 10, "value: abd");
  EXPECT_NE(of(published), of(other));
}

TEST(Workload, SecretsMayBeBase64OrPlain) {
  const std::string set = head + R"(  leaderWorkerTemplate:
    workerTemplate:
      spec:
        containers:
        - name: c
          command: [run]
          env:
          - {name: A, valueFrom: {secretKeyRef: {name: s, key: a}}}
          - {name: B, valueFrom: {configMapKeyRef: {name: m, key: b}}}
          - {name: C, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
)";
  const auto of = read_workload(set +
                                "---\nkind: Secret\nmetadata: {name: s}\ndata: {a: aGkK}\n"
                                "---\nkind: ConfigMap\nmetadata: {name: m}\ndata: {b: x}\n");
  ASSERT_TRUE(of) << of.error().message;
  const auto& environment = of->worker.containers.at(0).environment;
  EXPECT_EQ(environment.at(0).value, "hi\n");
  EXPECT_EQ(environment.at(1).value, "x");
  EXPECT_EQ(environment.at(2).field, "metadata.name");
  const auto missing = read_workload(set);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("the Secret \"s\" is not in the file"));
}

struct refusal {
  const char* what;  // is replaced
  const char* with;
  const char* path;  // the error begins with it
};

TEST(Workload, RefusesWithThePathOfTheField) {
  const std::string group = "spec.leaderWorkerTemplate";
  for (const refusal& wrong : {
           refusal{"x-k8s.io/v1\n", "x-k8s.io/v1beta1\n", "apiVersion"},
           refusal{"kind: LeaderWorkerSet", "kind: Deployment", "kind"},
           refusal{"replicas: 2", "replicas: 0", "spec.replicas"},
           refusal{"replicas: 2", "replicas: two", "spec.replicas"},
           refusal{"replicas: 2", "replica: 2", "spec.replica"},
           refusal{"replicas: 2", "replicas: 150", "spec.replicas"},
           refusal{"size: 3", "size: 0", "spec.leaderWorkerTemplate.size"},
           refusal{"size: 3", "sizes: 3", "spec.leaderWorkerTemplate.sizes"},
           refusal{"RecreateGroupOnPodRestart", "Always",
                   "spec.leaderWorkerTemplate.restartPolicy"},
           refusal{"name: HUGGING_FACE_HUB_TOKEN", "name: LWS_GROUP_SIZE",
                   "spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].env[0].name"},
           refusal{"name: dshm\n        volumes", "name: other\n        volumes",
                   "spec.leaderWorkerTemplate.leaderTemplate.spec.volumes"},
           refusal{"mountPath: /dev/shm", "mountPath: shm",
                   "spec.leaderWorkerTemplate.leaderTemplate.spec.containers"},
           refusal{"            command: [\"sh\", \"-c\", \"work\"]\n", "",
                   "spec.leaderWorkerTemplate.workerTemplate.spec.containers[0].command"},
           refusal{
               "emptyDir:", "persistentVolumeClaim:",
               "spec.leaderWorkerTemplate.leaderTemplate.spec.volumes[0].persistentVolumeClaim"},
           refusal{"  name: vllm\nspec", "  labels: {}\nspec", "metadata.name"},
           refusal{"replicas: 2", "replicas: [2", "line "},
           refusal{"containers:\n          - name: vllm-leader",
                   "containers: 5\n        x:\n          - name: l",
                   "spec.leaderWorkerTemplate.leaderTemplate.spec.containers"},
       }) {
    std::string text = published;
    const std::size_t at = text.find(wrong.what);
    ASSERT_NE(at, std::string::npos) << wrong.what;
    text.replace(at, std::string(wrong.what).size(), wrong.with);
    const auto of = read_workload(text);
    ASSERT_FALSE(of) << wrong.with;
    EXPECT_EQ(of.error().code, base::error_code::invalid_argument);
    EXPECT_TRUE(of.error().message.starts_with(wrong.path)) << of.error().message;
    EXPECT_EQ(of.error().message.find('\n'), std::string::npos) << of.error().message;
  }
}

TEST(Workload, SurvivesAnyCutOfAFile) {
  for (std::size_t size = 0; size < published.size(); size += 7) {
    const auto of = read_workload(published.substr(0, size));
    EXPECT_TRUE(of.has_value() || !of.error().message.empty());
  }
}

}  // namespace
}  // namespace troupe::lws
