#include "lws/local_environment.hpp"

#include <spdlog/fmt/fmt.h>

#include <iterator>
#include <map>

#include "lws/group_environment.hpp"
#include "lws/pod_parts.hpp"

namespace troupe::lws {
namespace {

using variables = std::map<std::string, std::string>;

// Kubernetes' own rule: $(NAME) where NAME is known, $$ is a dollar sign.
std::string expand(const std::string& text, const variables& known) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '$' || at + 1 == text.size()) {
      out += text[at];
      continue;
    }
    const std::size_t end = text.find(')', at);
    if (text[at + 1] == '$') {
      out += '$';
      ++at;
    } else if (text[at + 1] == '(' && end != std::string::npos &&
               known.contains(text.substr(at + 2, end - at - 2))) {
      out += known.at(text.substr(at + 2, end - at - 2));
      at = end;
    } else {
      out += '$';
    }
  }
  return out;
}

// What LWS puts on a pod beside what its template has.
variables labels_of(const local_pod& pod) {
  const workload& of = pod.of();
  variables labels = pod.spec().labels;
  const std::string domain = "leaderworkerset.sigs.k8s.io/";
  labels[name_label] = of.name;
  labels[domain + "group-index"] = std::to_string(pod.who().group);
  labels[index_label] = std::to_string(pod.who().index);
  labels[domain + "template-revision-hash"] = of.revision;
  if (of.subgroup_size) {
    labels[domain + "subgroup-index"] = std::to_string(pod.who().index / *of.subgroup_size);
  }
  return labels;
}

variables annotations_of(const local_pod& pod) {
  variables annotations = pod.spec().annotations;
  annotations["leaderworkerset.sigs.k8s.io/size"] = std::to_string(pod.of().size);
  if (pod.of().subgroup_size) {
    annotations["leaderworkerset.sigs.k8s.io/subgroup-size"] =
        std::to_string(*pod.of().subgroup_size);
  }
  return annotations;
}

base::result<std::string> field(const local_pod& pod, const std::string& path) {
  const auto keyed = [&path](std::string_view of) -> std::optional<std::string> {
    const std::string begin = "metadata." + std::string(of) + "['";
    if (!path.starts_with(begin) || !path.ends_with("']")) return std::nullopt;
    return path.substr(begin.size(), path.size() - begin.size() - 2);
  };
  const auto value = [](const variables& all, const std::string& key) {
    const auto found = all.find(key);
    return found == all.end() ? std::string() : found->second;
  };
  if (const auto key = keyed("labels")) return value(labels_of(pod), *key);
  if (const auto key = keyed("annotations")) return value(annotations_of(pod), *key);
  if (path == "metadata.name") return pod.who().name;
  if (path == "metadata.namespace") return pod.of().namespace_name;
  if (path == "metadata.uid") return pod.who().name + "-" + pod.of().revision;
  if (path == "status.podIP" || path == "status.hostIP") return pod.who().address;
  if (path == "spec.nodeName") return std::string("localhost");
  return base::fail(base::error_code::invalid_argument, "lws",
                    "env.valueFrom.fieldRef.fieldPath: \"" + path + "\" is no field of a pod here");
}

}  // namespace

base::result<std::vector<std::string>> container_environment(const local_pod& pod,
                                                             const container_spec& container,
                                                             const std::string& path_variable) {
  const workload& of = pod.of();
  const pod_identity& who = pod.who();
  const std::string leader = fmt::format("{}-{}", of.name, who.group);
  variables known = {
      {leader_address_variable, fmt::format("{}.{}.{}", leader, who.subdomain, of.namespace_name)},
      {group_size_variable, std::to_string(of.size)},
      {worker_index_variable, std::to_string(who.index)},
      {"PATH", path_variable},
      {"HOSTNAME", who.name},
      {"HOME", "/"},
      {"TROUPE_GANG_HOST", who.address}};
  for (const variable_spec& variable : container.environment) {
    std::string value = expand(variable.value, known);
    if (!variable.field.empty()) {
      TROUPE_TRY(told, field(pod, variable.field));
      value = std::move(told);
    }
    known[variable.name] = std::move(value);
  }
  std::vector<std::string> words;
  words.reserve(known.size());
  for (const auto& [name, value] : known) words.push_back(fmt::format("{}={}", name, value));
  return words;
}

std::vector<std::string> expand_words(const std::vector<std::string>& words,
                                      const std::vector<std::string>& environment) {
  variables known;
  for (const std::string& one : environment) {
    const std::size_t equals = one.find('=');
    known[one.substr(0, equals)] = one.substr(equals + 1);
  }
  std::vector<std::string> out;
  out.reserve(words.size());
  for (const std::string& word : words) out.push_back(expand(word, known));
  return out;
}

std::string hosts_file(const workload& of, const std::vector<pod_identity>& pods) {
  std::string text = "127.0.0.1 localhost\n::1 localhost\n";
  for (const pod_identity& pod : pods) {
    const std::string full = fmt::format("{}.{}.{}", pod.name, pod.subdomain, of.namespace_name);
    fmt::format_to(std::back_inserter(text), "{} {}.svc.cluster.local {}.svc {} {}.{} {}\n",
                   pod.address, full, full, full, pod.name, pod.subdomain, pod.name);
  }
  return text;
}

}  // namespace troupe::lws
