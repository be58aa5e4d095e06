#include "kernels/cpu_ops.hpp"

#include <algorithm>
#include <string>

#include "kernels/add/add.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/embed/embed.hpp"
#include "kernels/gated_activation/gated_activation.hpp"
#include "kernels/gather_rows/gather_rows.hpp"
#include "kernels/matmul/matmul.hpp"
#include "kernels/rms_norm/rms_norm.hpp"
#include "kernels/rotary/rotary.hpp"
#include "kernels/vocabulary/vocabulary.hpp"
#include "kernels/write_kv/write_kv.hpp"

namespace troupe::kernels {
namespace {

class cpu_ops final : public ops {
 public:
  explicit cpu_ops(instruction_path path) : path_(path) {}

  void embed(queue& on, const embed_args& args) override { kernels::embed(pool_of(on), args); }
  void rms_norm(queue& on, const rms_norm_args& args) override {
    kernels::rms_norm(path_, pool_of(on), args);
  }
  void matmul(queue& on, const matmul_args& args) override {
    kernels::matmul(path_, pool_of(on), args, matmul_scratch_);
  }
  void rotary(queue& on, const rotary_args& args) override {
    kernels::rotary(path_, pool_of(on), args);
  }
  void write_kv(queue& on, const write_kv_args& args) override {
    kernels::write_kv(path_, pool_of(on), args);
  }
  void attention(queue& on, const attention_args& args) override {
    kernels::attention(path_, pool_of(on), args, attention_scratch_);
  }
  void gated_activation(queue& on, const gated_activation_args& args) override {
    kernels::gated_activation(path_, pool_of(on), args);
  }
  void add(queue& on, const add_args& args) override { kernels::add(path_, pool_of(on), args); }
  void gather_rows(queue& on, const gather_rows_args& args) override {
    kernels::gather_rows(path_, pool_of(on), args);
  }
  void summarise_vocabulary(queue& on, const summarise_vocabulary_args& args) override {
    kernels::summarise_vocabulary(path_, pool_of(on), args);
  }

 private:
  // A model is given its ops and its queue together; another device's queue is a defect of that
  // code.
  static thread_pool& pool_of(queue& on) {
    auto* const cpu = dynamic_cast<cpu_queue*>(&on);
    TROUPE_CHECK(cpu != nullptr);
    return cpu->pool();
  }

  instruction_path path_;
  matmul_scratch matmul_scratch_;
  attention_scratch attention_scratch_;
};

}  // namespace

base::result<std::unique_ptr<ops>> make_cpu_ops(instruction_path path) {
  // Every path runs bfloat16; float32 weights take the fused multiply-adds of the same CPU.
  const std::vector<instruction_path> able = supported_paths(dtype::bfloat16);
  if (std::find(able.begin(), able.end(), path) == able.end()) {
    std::string message = "this CPU cannot run numerics " + std::string(to_string(path));
    if (able.empty()) message += " nor any other; AVX2 with FMA is the least";
    for (std::size_t i = 0; i < able.size(); ++i) {
      message += (i == 0 ? "; choose " : i + 1 == able.size() ? " or " : ", ");
      message += to_string(able[i]);
    }
    return base::fail(base::error_code::failed_precondition, "kernels", std::move(message));
  }
  return std::make_unique<cpu_ops>(path);
}

}  // namespace troupe::kernels
