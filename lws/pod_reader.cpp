#include "lws/pod_reader.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "base/base64.hpp"
#include "lws/group_environment.hpp"

namespace troupe::lws {
namespace {

constexpr int seconds_max = 86400;

std::string decoded(const std::string& name, const std::string& value) {
  auto bytes = base::from_base64(value);
  if (!bytes) throw field_error("data." + name + ": " + bytes.error().message);
  return *std::move(bytes);
}

class pod_reader {
 public:
  pod_reader(const file_contents& contents, std::vector<std::string>& not_honoured)
      : contents_(contents), not_honoured_(not_honoured) {}

  pod_spec read(yaml_fields pod_template) {
    pod_spec made;
    yaml_fields metadata = pod_template.map("metadata");
    for (auto& [name, value] : metadata.entries("labels")) made.labels[name] = value;
    for (auto& [name, value] : metadata.entries("annotations")) made.annotations[name] = value;
    yaml_fields spec = pod_template.map("spec");
    made.grace_s = spec.number("terminationGracePeriodSeconds", 30, 0, seconds_max);
    for (yaml_fields& one : spec.list("volumes")) made.volumes.push_back(read_volume(one));
    for (yaml_fields& one : spec.list("initContainers")) {
      made.first.push_back(read_container(one));
    }
    for (yaml_fields& one : spec.list("containers")) {
      made.containers.push_back(read_container(one));
    }
    if (made.containers.empty()) spec.refuse("containers", "a pod needs at least one");
    check_mounts(made, spec);
    // Hosts, users, limits and schedulers: this machine has one of each.
    for (const char* silent : {"automountServiceAccountToken", "enableServiceLinks",
                               "securityContext", "restartPolicy", "dnsPolicy"}) {
      spec.skip(silent);
    }
    note_rest(spec);
    return made;
  }

 private:
  void note_rest(const yaml_fields& fields) {
    for (const std::string& path : fields.rest()) {
      if (std::ranges::find(not_honoured_, path) == not_honoured_.end()) {
        not_honoured_.push_back(path);
      }
    }
  }

  const std::map<std::string, std::string>* find(const std::string& kind, const std::string& name,
                                                 bool optional, const yaml_fields& where) const {
    const auto found = contents_.find(kind + "/" + name);
    if (found != contents_.end()) return &found->second;
    if (optional) return nullptr;
    throw field_error(
        fmt::format("{}: the {} \"{}\" is not in the file: add it", where.path(), kind, name));
  }

  volume_spec read_volume(yaml_fields& fields) {
    volume_spec made{.name = fields.text("name")};
    if (fields.has("hostPath")) {
      made.host_path = fields.map("hostPath").text("path");
    } else if (fields.has("secret") || fields.has("configMap")) {
      const bool secret = fields.has("secret");
      yaml_fields source = fields.map(secret ? "secret" : "configMap");
      const auto* files =
          find(secret ? "Secret" : "ConfigMap", source.text(secret ? "secretName" : "name"),
               source.flag("optional", false), source);
      if (files != nullptr) made.files = *files;
    } else if (!fields.has("emptyDir")) {
      for (const std::string& path : fields.rest()) {
        throw field_error(path +
                          ": this machine has no such volume; use hostPath, emptyDir, secret "
                          "or configMap");
      }
    }
    return made;
  }

  variable_spec read_variable(yaml_fields& fields) {
    variable_spec made{.name = fields.text("name"), .value = fields.text("value")};
    if (made.name.empty()) fields.refuse("name", "a variable needs one");
    if (is_set_by_lws(made.name)) {
      fields.refuse("name", made.name + " is set by LWS in every pod of a group");
    }
    if (!fields.has("valueFrom")) return made;
    yaml_fields from = fields.map("valueFrom");
    if (from.has("fieldRef")) {
      made.field = from.map("fieldRef").text("fieldPath");
      return made;
    }
    for (const char* kind : {"secretKeyRef", "configMapKeyRef"}) {
      if (!from.has(kind)) continue;
      yaml_fields reference = from.map(kind);
      const auto* data = find(kind[0] == 's' ? "Secret" : "ConfigMap", reference.text("name"),
                              reference.flag("optional", false), reference);
      const std::string key = reference.text("key");
      if (data == nullptr) return made;
      const auto found = data->find(key);
      if (found == data->end()) reference.refuse("key", "\"" + key + "\" is not in it");
      made.value = found->second;
      return made;
    }
    for (const std::string& path : from.rest()) {
      throw field_error(path + ": this machine has no such source of a value");
    }
    return made;
  }

  std::optional<probe_spec> read_probe(yaml_fields& container, const char* which) {
    if (!container.has(which)) return std::nullopt;
    yaml_fields fields = container.map(which);
    probe_spec made{.initial_delay_s = fields.number("initialDelaySeconds", 0, 0, seconds_max),
                    .period_s = fields.number("periodSeconds", 10, 1, seconds_max),
                    .timeout_s = fields.number("timeoutSeconds", 1, 1, seconds_max),
                    .failures = fields.number("failureThreshold", 3, 1, seconds_max)};
    fields.skip("successThreshold");
    if (fields.has("exec")) {
      made.command = fields.map("exec").texts("command");
    } else if (fields.has("httpGet")) {
      yaml_fields get = fields.map("httpGet");
      made.path = get.text("path", "/");
      made.port = get.text("port");
      if (get.text("scheme", "HTTP") != "HTTP") get.refuse("scheme", "only HTTP is probed here");
    } else if (fields.has("tcpSocket")) {
      made.tcp = true;
      made.port = fields.map("tcpSocket").text("port");
    } else {
      not_honoured_.push_back(fields.path() + " (only exec, httpGet and tcpSocket)");
      return std::nullopt;
    }
    return made;
  }

  container_spec read_container(yaml_fields& fields) {
    container_spec made{.name = fields.text("name"), .words = fields.texts("command")};
    for (std::string& word : fields.texts("args")) made.words.push_back(std::move(word));
    if (made.words.empty()) {
      fields.refuse("command", "is the image's here, and no image is run: say which program");
    }
    made.folder = fields.text("workingDir");
    for (yaml_fields& one : fields.list("envFrom")) {
      const bool secret = one.has("secretRef");
      yaml_fields reference = one.map(secret ? "secretRef" : "configMapRef");
      const auto* data = find(secret ? "Secret" : "ConfigMap", reference.text("name"),
                              reference.flag("optional", false), reference);
      if (data == nullptr) continue;
      for (const auto& [name, value] : *data) {
        made.environment.push_back({.name = one.text("prefix") + name, .value = value});
      }
    }
    for (yaml_fields& one : fields.list("env")) made.environment.push_back(read_variable(one));
    for (yaml_fields& one : fields.list("volumeMounts")) {
      made.mounts.push_back({.volume = one.text("name"),
                             .path = one.text("mountPath"),
                             .sub_path = one.text("subPath"),
                             .read_only = one.flag("readOnly", false)});
    }
    for (yaml_fields& one : fields.list("ports")) {
      const int port = one.number("containerPort", 0, 1, 65535);
      made.ports[one.text("name", std::to_string(port))] = port;
    }
    made.startup = read_probe(fields, "startupProbe");
    made.readiness = read_probe(fields, "readinessProbe");
    made.liveness = read_probe(fields, "livenessProbe");
    yaml_fields stop = fields.map("lifecycle").map("preStop");
    made.pre_stop_s = stop.map("sleep").number("seconds", 0, 0, seconds_max);
    note_rest(stop);
    // Taken for granted: the program is this machine's, as is what it may do.
    for (const char* silent : {"image", "imagePullPolicy", "securityContext"}) {
      fields.skip(silent);
    }
    note_rest(fields);
    return made;
  }

  static void check_mounts(const pod_spec& made, const yaml_fields& spec) {
    for (const auto* containers : {&made.first, &made.containers}) {
      for (const container_spec& container : *containers) {
        for (const mount_spec& mount : container.mounts) {
          const bool known = std::ranges::any_of(
              made.volumes, [&](const volume_spec& one) { return one.name == mount.volume; });
          if (!known) spec.refuse("volumes", "there is no volume \"" + mount.volume + "\"");
          if (!mount.path.starts_with('/')) {
            spec.refuse("containers", "mountPath \"" + mount.path + "\" does not begin with /");
          }
        }
      }
    }
  }

  const file_contents& contents_;
  std::vector<std::string>& not_honoured_;
};

}  // namespace

void read_contents(yaml_fields document, const std::string& kind, file_contents& into) {
  auto& files = into[kind + "/" + document.map("metadata").text("name")];
  const bool secret = kind == "Secret";
  for (auto& [name, value] : document.entries("data")) {
    files[name] = secret ? decoded(name, value) : value;
  }
  for (auto& [name, value] : document.entries("stringData")) files[name] = value;
}

pod_spec read_pod(yaml_fields pod_template, const file_contents& contents,
                  std::vector<std::string>& not_honoured) {
  return pod_reader(contents, not_honoured).read(std::move(pod_template));
}

}  // namespace troupe::lws
