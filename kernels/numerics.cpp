#include "kernels/numerics.hpp"

#include <array>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace troupe::kernels {
namespace {

constexpr std::array all_paths{instruction_path::amx_bf16,  instruction_path::avx512_bf16,
                               instruction_path::avx512,    instruction_path::avx2,
                               instruction_path::cuda_sm80, instruction_path::cuda_sm90,
                               instruction_path::cuda_sm100};

#if defined(__x86_64__) && defined(__linux__)

// Highway's AVX2 target also assumes these; every CPU with AVX2 known to us has them.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("aes") &&
         __builtin_cpu_supports("pclmul");
}

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

struct cpu_leaf {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
};

// Leaf 7 of CPUID; zeros where the CPU has no such subleaf. Source: Intel manual, CPUID.
cpu_leaf extended_features(unsigned subleaf) {
  cpu_leaf leaf;
  if (__get_cpuid_count(7, subleaf, &leaf.eax, &leaf.ebx, &leaf.ecx, &leaf.edx) == 0) return {};
  return leaf;
}

bool has_amx_int8_bit() { return (extended_features(0).edx & 1U << 25) != 0; }
bool has_avx_vnni_bit() { return (extended_features(1).eax & 1U << 4) != 0; }
bool has_avx512_vnni_bit() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

// The CPU's bits, then the kernel's word: tile data is off in every process until asked for.
// Source: Linux, Documentation/arch/x86/xstate.rst.
bool has_amx_bf16() {
  constexpr unsigned bf16_bit = 1U << 22;
  constexpr unsigned tile_bit = 1U << 24;
  const unsigned edx = extended_features(0).edx;
  if ((edx & bf16_bit) == 0 || (edx & tile_bit) == 0) return false;
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // XFEATURE_XTILE_DATA
  return has_avx512_bf16() && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

bool runs_here(instruction_path path) {
  switch (path) {
    case instruction_path::amx_bf16:
      return has_amx_bf16();
    case instruction_path::avx512_bf16:
      return has_avx512_bf16();
    case instruction_path::avx512:
      return has_avx512();
    case instruction_path::avx2:
      return has_avx2();
    case instruction_path::cuda_sm80:
    case instruction_path::cuda_sm90:
    case instruction_path::cuda_sm100:
      return false;  // a device of its own: kernels/device.hpp
  }
  return false;
}

#else
bool runs_here(instruction_path) { return false; }
bool has_amx_int8_bit() { return false; }
bool has_avx512_vnni_bit() { return false; }
bool has_avx_vnni_bit() { return false; }
#endif

}  // namespace

std::string_view to_string(instruction_path path) noexcept {
  switch (path) {
    case instruction_path::amx_bf16:
      return "amx_bf16";
    case instruction_path::avx512_bf16:
      return "avx512_bf16";
    case instruction_path::avx512:
      return "avx512";
    case instruction_path::avx2:
      return "avx2";
    case instruction_path::cuda_sm80:
      return "cuda_sm80";
    case instruction_path::cuda_sm90:
      return "cuda_sm90";
    case instruction_path::cuda_sm100:
      return "cuda_sm100";
  }
  return "unknown";
}

std::optional<instruction_path> parse_instruction_path(std::string_view text) noexcept {
  for (const instruction_path path : all_paths) {
    if (text == to_string(path)) return path;
  }
  return std::nullopt;
}

std::vector<instruction_path> supported_paths(dtype type) {
  std::vector<instruction_path> found;
  for (const instruction_path path : all_paths) {
    const bool for_bfloat16_only =
        path == instruction_path::amx_bf16 || path == instruction_path::avx512_bf16;
    if (for_bfloat16_only && type != dtype::bfloat16) continue;
    if (runs_here(path)) found.push_back(path);
  }
  return found;
}

// Asked once: in a virtual machine CPUID is a call to the host.
bool has_amx_int8() noexcept {
  static const bool has = has_amx_int8_bit();
  return has;
}
bool has_avx512_vnni() noexcept {
  static const bool has = has_avx512_vnni_bit();
  return has;
}
bool has_avx_vnni() noexcept {
  static const bool has = has_avx_vnni_bit();
  return has;
}

std::string_view weights_name(const numerics_profile& profile) noexcept {
  switch (profile.kept) {
    case quantisation::float8_blocks:
      return "float8_blocks";
    case quantisation::int8_runs:
      return "int8";
    case quantisation::int4_groups:
      return "int4";
    case quantisation::none:
      break;
  }
  return to_string(profile.weights);
}

std::string to_string(const numerics_profile& profile) {
  std::string text(to_string(profile.path));
  text += '/';
  text += weights_name(profile);
  text += "/kv-";
  text += to_string(profile.kv_cache);
  text += "/v" + std::to_string(profile.version);
  return text;
}

}  // namespace troupe::kernels
