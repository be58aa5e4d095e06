// troupe certificates DIR: makes the certificates of one gang, for every machine of it to have.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/fd.hpp"
#include "base/tls.hpp"
#include "cli/commands.hpp"
#include "cli/yaml_config.hpp"

namespace troupe::cli {
namespace {

// A file that is not there yet, for its owner alone.
base::result<void> write_new(const std::filesystem::path& path, const std::string& text) {
  const base::fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return base::fail(base::error_code::failed_precondition, "cli",
                      "cannot write " + path.string() + ": it must not exist yet, its folder must");
  }
  return {};
}

base::result<void> make_certificates(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  TROUPE_TRY(made, base::make_gang_credentials());
  TROUPE_TRY_VOID(write_new(folder / "ca.crt", made.authority));
  TROUPE_TRY_VOID(write_new(folder / "tls.crt", made.certificate));
  return write_new(folder / "tls.key", made.key);
}

}  // namespace

command add_certificates(CLI::App& program) {
  auto folder = std::make_shared<std::string>();
  CLI::App* parser = program.add_subcommand(
      "certificates", "Make a gang's own certificates, for --gang-tls on each of its machines");
  parser->add_option("DIR", *folder, "where tls.crt, tls.key and ca.crt go")->required();
  add_sources(*parser);
  return {parser, [folder] {
            const auto made = make_certificates(*folder);
            if (!made) return report(made.error(), exit_code::failed);
            std::printf("%s: copy it to every machine of the gang, over a safe way\n",
                        folder->c_str());
            return exit_code::fine;
          }};
}

}  // namespace troupe::cli
