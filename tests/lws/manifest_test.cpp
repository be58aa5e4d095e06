#include "lws/manifest.hpp"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <functional>
#include <map>
#include <set>

namespace troupe::lws {
namespace {

manifest_options usual() {
  manifest_options options{.name = "llm", .image = "example.invalid/troupe:1"};
  options.memory_bytes = std::uint64_t{3} << 30U;
  return options;
}

std::map<std::string, YAML::Node> objects(const manifest_options& options) {
  std::map<std::string, YAML::Node> all;
  const auto files = make_manifest(options);
  EXPECT_TRUE(files) << files.error().message;
  if (!files) return all;
  for (const manifest_file& file : *files) {
    for (const YAML::Node& document : YAML::LoadAll(file.yaml)) {
      const auto kind = document["kind"].as<std::string>();
      all[kind == "Secret" ? kind + " " + document["metadata"]["name"].as<std::string>() : kind] =
          document;
    }
  }
  return all;
}

YAML::Node container(const YAML::Node& set, const char* which) {
  return set["spec"]["leaderWorkerTemplate"][which]["spec"]["containers"][0];
}

TEST(Manifest, HasTheSameCommandForEveryPod) {
  const YAML::Node set = objects(usual())["LeaderWorkerSet"];
  const YAML::Node leader = container(set, "leaderTemplate");
  const YAML::Node worker = container(set, "workerTemplate");
  EXPECT_EQ(YAML::Dump(leader["args"]), YAML::Dump(worker["args"]));
  EXPECT_EQ(leader["args"][0].as<std::string>(), "serve");
  EXPECT_EQ(leader["resources"]["limits"]["memory"].as<std::string>(), "3072Mi");
}

TEST(Manifest, IsClosed) {
  const auto all = objects(usual());
  for (const char* which : {"leaderTemplate", "workerTemplate"}) {
    const YAML::Node pod = all.at("LeaderWorkerSet")["spec"]["leaderWorkerTemplate"][which]["spec"];
    EXPECT_FALSE(pod["automountServiceAccountToken"].as<bool>());
    EXPECT_TRUE(pod["securityContext"]["runAsNonRoot"].as<bool>());
    EXPECT_EQ(pod["securityContext"]["seccompProfile"]["type"].as<std::string>(), "RuntimeDefault");
    const YAML::Node security = pod["containers"][0]["securityContext"];
    EXPECT_TRUE(security["readOnlyRootFilesystem"].as<bool>());
    EXPECT_FALSE(security["allowPrivilegeEscalation"].as<bool>());
    EXPECT_EQ(security["capabilities"]["drop"][0].as<std::string>(), "ALL");
  }
  const YAML::Node policy = all.at("NetworkPolicy")["spec"];
  EXPECT_EQ(policy["policyTypes"].size(), 2U);
  std::set<std::string> open;
  for (const YAML::Node& rule : policy["ingress"]) {
    ASSERT_TRUE(rule["from"]) << "open to everybody";
    for (const YAML::Node& port : rule["ports"]) {
      open.insert(port["port"].as<std::string>() +
                  (port["endPort"] ? "-" + port["endPort"].as<std::string>() : ""));
    }
  }
  EXPECT_EQ(open, (std::set<std::string>{"8000", "8472", "8473-8488"}));
}

// A gang that loads or mends itself must not be restarted for it.
TEST(Manifest, AsksTheSupervisorAloneForLiveness) {
  const YAML::Node set = objects(usual())["LeaderWorkerSet"];
  const YAML::Node leader = container(set, "leaderTemplate");
  EXPECT_EQ(leader["livenessProbe"]["httpGet"]["path"].as<std::string>(), "/health");
  EXPECT_EQ(leader["readinessProbe"]["httpGet"]["path"].as<std::string>(), "/ready");
  const YAML::Node worker = container(set, "workerTemplate");
  EXPECT_EQ(worker["livenessProbe"]["exec"]["command"][2].as<std::string>(), "--alive");
  EXPECT_EQ(worker["readinessProbe"]["exec"]["command"].size(), 2U);
}

// It serves on while Services still send to it, then open requests end.
TEST(Manifest, OutlastsTheSleepAndTheDrain) {
  manifest_options options = usual();
  options.drain_timeout_s = 300;
  const YAML::Node set = objects(options)["LeaderWorkerSet"];
  for (const char* which : {"leaderTemplate", "workerTemplate"}) {
    const int sleep_s = container(set, which)["lifecycle"]["preStop"]["sleep"]["seconds"].as<int>();
    EXPECT_GT(sleep_s, 0);
    const YAML::Node pod = set["spec"]["leaderWorkerTemplate"][which]["spec"];
    EXPECT_GT(pod["terminationGracePeriodSeconds"].as<int>(), 300 + sleep_s);
  }
}

TEST(Manifest, MountsTheModelForReadingOnly) {
  for (const char* source : {"pvc:weights", "image:example.invalid/model:1", "hostPath:/models",
                             "init:example.invalid/fetch:1"}) {
    manifest_options options = usual();
    const auto parsed = parse_model_source(source);
    ASSERT_TRUE(parsed) << source;
    options.model = *parsed;
    const YAML::Node worker = container(objects(options)["LeaderWorkerSet"], "workerTemplate");
    EXPECT_EQ(worker["args"][1].as<std::string>(), "/model");
    bool found = false;
    for (const YAML::Node& mount : worker["volumeMounts"]) {
      if (mount["name"].as<std::string>() != "model") continue;
      found = mount["readOnly"].as<bool>();
    }
    EXPECT_TRUE(found) << source;
  }
  manifest_options options = usual();
  options.model = *parse_model_source("init:example.invalid/fetch:1");
  const YAML::Node set = objects(options)["LeaderWorkerSet"];
  for (const char* which : {"leaderTemplate", "workerTemplate"}) {
    const YAML::Node pod = set["spec"]["leaderWorkerTemplate"][which]["spec"];
    const YAML::Node first = pod["initContainers"][0];
    EXPECT_EQ(first["image"].as<std::string>(), "example.invalid/fetch:1");
    EXPECT_FALSE(first["volumeMounts"][0]["readOnly"]) << "it fills the folder";
    EXPECT_TRUE(first["securityContext"]["readOnlyRootFilesystem"].as<bool>());
  }
  EXPECT_FALSE(parse_model_source("init:"));
  EXPECT_FALSE(parse_model_source("models"));
  EXPECT_FALSE(parse_model_source("pvc:"));
  EXPECT_FALSE(parse_model_source("hostPath:relative"));
}

TEST(Manifest, HoldsSecretsOnlyWhenAskedTo) {
  EXPECT_EQ(objects(usual()).count("Secret llm-gang"), 0U);
  manifest_options options = usual();
  options.secrets = secret_source::generated;
  options.texts = {"sk-key", "cert\n", "key\n", "ca\n"};
  const auto all = objects(options);
  EXPECT_EQ(all.at("Secret llm-gang")["stringData"]["tls.key"].as<std::string>(), "key\n");
  EXPECT_EQ(all.at("Secret llm-api-keys")["stringData"]["keys"].as<std::string>(), "sk-key\n");
}

TEST(Manifest, GivesTheRouterWhatItNeedsAndNoMore) {
  EXPECT_EQ(objects(usual()).count("Deployment"), 0U);
  manifest_options options = usual();
  options.routers = 2;
  options.namespace_name = "serving";
  const auto all = objects(options);
  const YAML::Node deployment = all.at("Deployment")["spec"];
  EXPECT_EQ(deployment["replicas"].as<int>(), 2);
  const YAML::Node pod = deployment["template"]["spec"];
  EXPECT_TRUE(pod["securityContext"]["runAsNonRoot"].as<bool>());
  EXPECT_TRUE(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"].as<bool>());
  EXPECT_EQ(pod["containers"][0]["args"][1].as<std::string>(),
            "--gang-selector=leaderworkerset.sigs.k8s.io/name=llm,"
            "leaderworkerset.sigs.k8s.io/worker-index=0");
  const YAML::Node rule = all.at("Role")["rules"];
  EXPECT_EQ(rule.size(), 1U);
  EXPECT_EQ(rule[0]["resources"].as<std::vector<std::string>>(), std::vector<std::string>{"pods"});
  EXPECT_EQ(rule[0]["verbs"].as<std::vector<std::string>>(),
            (std::vector<std::string>{"get", "list", "watch"}));
  const YAML::Node bound = all.at("RoleBinding");
  EXPECT_EQ(bound["subjects"][0]["name"].as<std::string>(),
            pod["serviceAccountName"].as<std::string>());
  EXPECT_EQ(bound["subjects"][0]["namespace"].as<std::string>(), "serving");
  // Nothing that selects the gangs may find a router's pod.
  const YAML::Node labels = deployment["template"]["metadata"]["labels"];
  EXPECT_FALSE(labels["leaderworkerset.sigs.k8s.io/name"]);
  for (const auto& entry : deployment["selector"]["matchLabels"]) {
    EXPECT_EQ(labels[entry.first.as<std::string>()].as<std::string>(),
              entry.second.as<std::string>());
  }
}

TEST(Manifest, HasWhatAClusterMayHaveBesideWhenAskedFor) {
  manifest_options options = usual();
  options.autoscale = {2, 8, 5};
  options.pod_monitor = true;
  options.queue = "team-a";
  options.inference_pool = "picker";
  options.gpus = 1;
  options.device_class = "gpu.example.com";
  options.secrets = secret_source::cert_manager;
  const auto all = objects(options);
  const YAML::Node set = all.at("LeaderWorkerSet");
  EXPECT_FALSE(set["spec"]["replicas"]) << "the autoscaler's";
  EXPECT_EQ(set["metadata"]["labels"]["kueue.x-k8s.io/queue-name"].as<std::string>(), "team-a");
  const YAML::Node scaler = all.at("HorizontalPodAutoscaler")["spec"];
  EXPECT_EQ(scaler["maxReplicas"].as<int>(), 8);
  EXPECT_EQ(scaler["metrics"][0]["pods"]["metric"]["name"].as<std::string>(),
            "vllm:num_requests_waiting");
  const YAML::Node leader = container(set, "leaderTemplate");
  EXPECT_FALSE(leader["resources"]["limits"]["nvidia.com/gpu"]);
  const YAML::Node pod = set["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"];
  EXPECT_EQ(pod["resourceClaims"][0]["resourceClaimTemplateName"].as<std::string>(),
            all.at("ResourceClaimTemplate")["metadata"]["name"].as<std::string>());
  EXPECT_EQ(leader["resources"]["claims"][0]["name"].as<std::string>(),
            pod["resourceClaims"][0]["name"].as<std::string>());
  for (const char* kind : {"PodMonitor", "InferencePool"}) {
    const YAML::Node labels = all.at(kind)["spec"]["selector"]["matchLabels"];
    EXPECT_EQ(labels["leaderworkerset.sigs.k8s.io/worker-index"].as<std::string>(), "0") << kind;
  }
  // The last Certificate is the gang's; its Secret is what the pods mount.
  EXPECT_EQ(all.at("Certificate")["spec"]["secretName"].as<std::string>(), "llm-gang");
  EXPECT_EQ(all.count("Secret llm-gang"), 0U);
}

TEST(Manifest, ReadsHowManyGangsThereMayBe) {
  const auto bounds = parse_autoscale("2-16:3");
  ASSERT_TRUE(bounds);
  EXPECT_EQ(bounds->least, 2);
  EXPECT_EQ(bounds->most, 16);
  EXPECT_EQ(bounds->waiting, 3);
  EXPECT_EQ(parse_autoscale("1-2")->waiting, autoscale_bounds{}.waiting);
  for (const char* bad : {"", "3", "a-b", "1-", "1-2:", "1-2:x", "1-2x", "-1"}) {
    EXPECT_FALSE(parse_autoscale(bad)) << bad;
  }
}

TEST(Manifest, HasTheWorkloadAloneWhenOnlyTheCoreIsWanted) {
  manifest_options options = usual();
  options.core_only = true;
  const auto all = objects(options);
  EXPECT_EQ(all.size(), 2U);
  EXPECT_TRUE(all.contains("LeaderWorkerSet") && all.contains("Service"));
}

// A gang of one pod has no network: HTTP must not be on loopback then.
TEST(Manifest, BindsHttpToThePodWhereThereIsNoGangNetwork) {
  manifest_options options = usual();
  options.nodes = 1;
  options.tensor_parallel_size = 1;
  const YAML::Node leader = container(objects(options)["LeaderWorkerSet"], "leaderTemplate");
  bool found = false;
  for (const YAML::Node& variable : leader["env"]) {
    found = found || variable["name"].as<std::string>() == "TROUPE_HOST";
  }
  EXPECT_TRUE(found);
}

struct refusal {
  const char* what;
  const char* path;
  std::function<void(manifest_options&)> make;
};

const refusal refusals[] = {
    {"upper case", "metadata.name", [](auto& o) { o.name = "LLM"; }},
    {"begins with a digit", "metadata.name", [](auto& o) { o.name = "1llm"; }},
    {"too long with LWS's suffixes", "metadata.name",
     [](auto& o) { o.name = std::string(51, 'a'); }},
    {"namespace", "metadata.namespace", [](auto& o) { o.namespace_name = "a/b"; }},
    {"no image", "containers[0].image", [](auto& o) { o.image = ""; }},
    {"replicas 0", "spec.replicas", [](auto& o) { o.replicas = 0; }},
    {"fewer routers than none", "--router", [](auto& o) { o.routers = -1; }},
    {"more least than most", "--autoscale",
     [](auto& o) {
       o.autoscale = {3, 2, 4};
     }},
    {"nobody waits", "--autoscale",
     [](auto& o) {
       o.autoscale = {1, 2, 0};
     }},
    {"devices of no number", "--device-class", [](auto& o) { o.device_class = "gpu.example.com"; }},
    {"queue", "metadata.labels", [](auto& o) { o.queue = "a/b"; }},
    {"picker", "--inference-pool", [](auto& o) { o.inference_pool = "A"; }},
    {"no pods", "spec.leaderWorkerTemplate.size", [](auto& o) { o.nodes = 0; }},
    {"pods do not divide ranks", "spec.leaderWorkerTemplate.size", [](auto& o) { o.nodes = 3; }},
    {"GPUs for no rank", ".resources", [](auto& o) { o.gpus = 2; }},
    {"subgroups", "subGroupSize", [](auto& o) { o.subgroup_size = 3; }},
    {"subgroups cut a stage", "subGroupSize", [](auto& o) { o.subgroup_size = 1; }},
    {"no update could begin", "maxUnavailable", [](auto& o) { o.max_surge = "0"; }},
    {"rounds down to none", "maxUnavailable",
     [](auto& o) { o.max_unavailable = "50%", o.max_surge = "0"; }},
    {"over 100%", "maxSurge", [](auto& o) { o.max_surge = "101%"; }},
    {"no number", "maxUnavailable", [](auto& o) { o.max_unavailable = "one"; }},
    {"negative", "partition", [](auto& o) { o.partition = -1; }},
    {"ready waits for workers", "spec.startupPolicy",
     [](auto& o) { o.startup_policy = "LeaderReady"; }},
    {"unknown policy", "restartPolicy", [](auto& o) { o.restart_policy = "Always"; }},
    {"unknown policy", "subdomainPolicy", [](auto& o) { o.subdomain_policy = "shared"; }},
    {"ucx without its policy", "--data-plane",
     [](auto& o) { o.data_plane = "ucx", o.core_only = true; }},
    {"set by LWS", "containers[0].env", [](auto& o) { o.environment = {"LWS_GROUP_SIZE=3"}; }},
    {"no value", "containers[0].env", [](auto& o) { o.environment = {"NAME"}; }}};

TEST(Manifest, RefusesWithThePathOfTheField) {
  for (const refusal& wrong : refusals) {
    manifest_options options = usual();
    wrong.make(options);
    const auto made = make_manifest(options);
    ASSERT_FALSE(made) << wrong.what;
    const std::string& message = made.error().message;
    EXPECT_NE(message.substr(0, message.find(": ")).find(wrong.path), std::string::npos)
        << wrong.what << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Manifest, TakesNamesAsLongAsTheSuffixesAllow) {
  manifest_options options = usual();
  options.name = std::string(50, 'a');
  EXPECT_TRUE(make_manifest(options));
}

}  // namespace
}  // namespace troupe::lws
