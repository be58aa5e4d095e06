// troupe certificates DIR: makes the certificates of one gang, for every machine of it to have.
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/tls.hpp"
#include "cli/commands.hpp"
#include "cli/owner_file.hpp"
#include "cli/yaml_config.hpp"

namespace troupe::cli {
namespace {

base::result<void> make_certificates(const std::filesystem::path& folder) {
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  TROUPE_TRY(made, base::make_gang_credentials());
  TROUPE_TRY_VOID(write_owner_file(folder / "ca.crt", made.authority));
  TROUPE_TRY_VOID(write_owner_file(folder / "tls.crt", made.certificate));
  return write_owner_file(folder / "tls.key", made.key);
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
