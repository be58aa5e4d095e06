// What the tests of the CUDA backend share: the device, opened once, and host views run on it.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "kernels/cuda_library.hpp"

namespace troupe::kernels::cuda_testing {

class cuda_test : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto opened = open_cuda({});
    if (opened) {
      device_ = opened->release();
    } else {
      why_ = new std::string(opened.error().message);
    }
  }
  static void TearDownTestSuite() {
    delete device_;
    delete why_;
    device_ = nullptr;
    why_ = nullptr;
  }
  void SetUp() override {
    if (device_ == nullptr) GTEST_SKIP() << *why_;
    auto made = device_->make_queue();
    ASSERT_TRUE(made.has_value());
    queue_ = *std::move(made);
    ops_ = device_->make_ops();
  }
  void TearDown() override {
    if (queue_ == nullptr) return;
    const auto settled = queue_->synchronize();
    EXPECT_TRUE(settled.has_value()) << settled.error().message;
    ops_.reset();
    queue_.reset();
    buffers_.clear();
  }

  [[nodiscard]] static device& on() { return *device_; }
  [[nodiscard]] queue& here() { return *queue_; }
  [[nodiscard]] ops& run() { return *ops_; }

  // Device memory with these bytes. Lifetime: the test's.
  std::byte* put(const void* host, std::size_t bytes) {
    auto made = device_->allocate(std::max<std::size_t>(bytes, 1), "a test");
    EXPECT_TRUE(made.has_value()) << made.error().message;
    buffers_.push_back(*std::move(made));
    const auto* const begin = static_cast<const std::byte*>(host);
    EXPECT_TRUE(queue_->write({begin, bytes}, buffers_.back().data()).has_value());
    return buffers_.back().data();
  }
  // The same view of a copy on the device, gaps included.
  tensor_view put(const tensor_view& host) {
    tensor_view copy = host;
    copy.data = {device_kind::cuda, put(host.data.address, bytes_of(host))};
    return copy;
  }
  void get(const tensor_view& from, const tensor_view& to) {
    const auto done = queue_->read(from.data.address, {to.data.address, bytes_of(to)});
    ASSERT_TRUE(done.has_value()) << done.error().message;
  }
  [[nodiscard]] static std::size_t bytes_of(const tensor_view& of) {
    if (of.rows() == 0) return 0;
    return static_cast<std::size_t>((of.rows() - 1) * of.row_stride + of.columns()) *
           size_of(of.type);
  }

 private:
  static inline device* device_ = nullptr;
  static inline std::string* why_ = nullptr;
  std::unique_ptr<queue> queue_;
  std::unique_ptr<ops> ops_;
  std::deque<buffer> buffers_;
};

// A float32 matrix with a NaN between rows.
struct host_matrix {
  host_matrix(std::int64_t row_count, std::int64_t column_count, std::int64_t gap = 0)
      : rows(row_count),
        columns(column_count),
        stride(column_count + gap),
        values(static_cast<std::size_t>(row_count * stride), __builtin_nanf("")) {}
  [[nodiscard]] tensor_view view() {
    return {{device_kind::cpu, reinterpret_cast<std::byte*>(values.data())},
            dtype::float32,
            {rows, columns, 1},
            stride};
  }
  [[nodiscard]] float& at(std::int64_t row, std::int64_t column) {
    return values[static_cast<std::size_t>(row * stride + column)];
  }
  template <class Next>
  host_matrix& fill(Next&& next) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t column = 0; column < columns; ++column) at(row, column) = next();
    }
    return *this;
  }
  [[nodiscard]] bool same_bits(const host_matrix& other) const {
    return values.size() == other.values.size() &&
           std::memcmp(values.data(), other.values.data(), values.size() * 4) == 0;
  }
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;
  std::vector<float> values;
};

}  // namespace troupe::kernels::cuda_testing
