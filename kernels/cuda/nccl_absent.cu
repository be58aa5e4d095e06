// In place of nccl_group.cu where the build found no nccl.h.
#include "kernels/cuda/nccl_group.cuh"

namespace troupe::kernels::cuda {
namespace {

tl::unexpected<base::error> absent() {
  return base::fail(base::error_code::failed_precondition, "cuda",
                    "the CUDA backend was built without nccl.h (scripts/cuda-toolkit has it)");
}

}  // namespace

base::result<std::string> nccl_version() { return absent(); }
base::result<device_group_id> make_nccl_id() { return absent(); }
base::result<std::unique_ptr<device_group>> make_nccl_group(cuda_queue&,
                                                            const device_group_options&) {
  return absent();
}

}  // namespace troupe::kernels::cuda
