#include "cli/build_id.hpp"

#include <elf.h>
#include <link.h>

#include <cstring>
#include <span>
#include <string_view>

namespace troupe::cli {
namespace {

// The linker's build id, a digest of the program's contents (GNU ld manual, --build-id).
struct note_search {
  std::string hex;
};

void read_notes(const char* at, const char* end, note_search& found) {
  while (end - at >= static_cast<std::ptrdiff_t>(sizeof(ElfW(Nhdr)))) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const auto padded = [](std::size_t bytes) { return (bytes + 3) & ~std::size_t{3}; };
    const char* const name = at + sizeof note;
    const char* const content = name + padded(note.n_namesz);
    if (note.n_type == NT_GNU_BUILD_ID && std::string_view(name, 3) == "GNU") {
      constexpr char digits[] = "0123456789abcdef";
      for (std::size_t i = 0; i < note.n_descsz; ++i) {
        const auto byte = static_cast<unsigned char>(content[i]);
        found.hex += {digits[byte >> 4U], digits[byte & 15U]};
      }
      return;
    }
    at = content + padded(note.n_descsz);
  }
}

int look(dl_phdr_info* info, std::size_t, void* into) {
  auto& found = *static_cast<note_search*>(into);
  for (int i = 0; i < info->dlpi_phnum && found.hex.empty(); ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* const begin = reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr);
    read_notes(begin, begin + segment.p_memsz, found);
  }
  return 1;  // the first object is the program itself
}

}  // namespace

std::string build_id() {
  constexpr std::size_t shown = 16;
  note_search found;
  ::dl_iterate_phdr(look, &found);
  return std::string(TROUPE_VERSION) + "+" + found.hex.substr(0, shown);
}

}  // namespace troupe::cli
