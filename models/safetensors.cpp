#include "models/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "models/json_bounds.hpp"

namespace troupe::models {
namespace {

using limits = checkpoint_limits;
constexpr std::string_view origin = "models";
constexpr std::string_view metadata_key = "__metadata__";
constexpr int header_depth_max = 3;  // header, tensor, list

struct dtype_name {
  std::string_view name;
  unsigned bits;
  stored_dtype dtype;
};

// Source: safetensors/src/tensor.rs, enum Dtype.
constexpr std::array<dtype_name, 22> dtype_names = {{
    {"F32", 32, stored_dtype::float32},
    {"F16", 16, stored_dtype::float16},
    {"BF16", 16, stored_dtype::bfloat16},
    {"BOOL", 8, stored_dtype::other},
    {"F4", 4, stored_dtype::other},
    {"F6_E2M3", 6, stored_dtype::other},
    {"F6_E3M2", 6, stored_dtype::other},
    {"U8", 8, stored_dtype::other},
    {"I8", 8, stored_dtype::other},
    {"F8_E5M2", 8, stored_dtype::other},
    {"F8_E4M3", 8, stored_dtype::float8_e4m3},
    {"F8_E4M3FNUZ", 8, stored_dtype::other},
    {"F8_E5M2FNUZ", 8, stored_dtype::other},
    {"F8_E8M0", 8, stored_dtype::other},
    {"I16", 16, stored_dtype::other},
    {"U16", 16, stored_dtype::other},
    {"I32", 32, stored_dtype::other},
    {"U32", 32, stored_dtype::other},
    {"F64", 64, stored_dtype::other},
    {"I64", 64, stored_dtype::other},
    {"U64", 64, stored_dtype::other},
    {"C64", 64, stored_dtype::other},
}};

const dtype_name* find_dtype(std::string_view name) {
  const auto* it = std::ranges::find(dtype_names, name, &dtype_name::name);
  return it == dtype_names.end() ? nullptr : it;
}

// Bytes of `shape` in `bits` a value; nullopt when they overflow or are no whole number.
std::optional<std::uint64_t> byte_span(std::span<const std::int64_t> shape, unsigned bits) {
  std::uint64_t values = 1;
  for (const std::int64_t size : shape) {
    if (__builtin_mul_overflow(values, static_cast<std::uint64_t>(size), &values)) {
      return std::nullopt;
    }
  }
  std::uint64_t total_bits = 0;
  if (__builtin_mul_overflow(values, std::uint64_t{bits}, &total_bits) || total_bits % 8 != 0) {
    return std::nullopt;
  }
  return total_bits / 8;
}

bool has_control_bytes(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

// The header's one shape as a state machine over parse events.
class header_events final : public bounded_json_events {
 public:
  header_events(const safetensors_header& header, std::vector<tensor_info>& tensors)
      : bounded_json_events(header_depth_max), header_(header), tensors_(tensors) {}

  bool on_start(bool object) override {
    if (depth() == 1) return object || refuse("the header is not a JSON object");
    if (depth() == 2) return object || refuse(fmt::format("{}: not an object", entry()));
    if (in_metadata_) return refuse("__metadata__: values must be strings");
    if (object || (field_ != field::shape && field_ != field::offsets)) {
      return refuse(fmt::format("{}: field {}: wrong type", entry(), in_quotes(field_name_)));
    }
    return true;
  }

  bool on_key(std::string& name) override {
    if (depth() == 1) return start_entry(name);
    if (in_metadata_) return true;
    return start_field(name);
  }

  bool on_scalar(nlohmann::json value) override {
    if (depth() == 0) return refuse("the header is not a JSON object");
    if (depth() == 1) return refuse(fmt::format("{}: not an object", entry()));
    if (in_metadata_) return value.is_string() || refuse("__metadata__: values must be strings");
    if (depth() == 2) return take_dtype(value);
    return take_number(value);
  }

  // Called after the depth went down: 2 ends a list, 1 a tensor, 0 the header.
  bool on_end() override {
    if (depth() != 1) return true;
    if (std::exchange(in_metadata_, false)) return true;
    return finish_tensor();
  }

 private:
  enum class field : std::uint8_t { none, dtype, shape, offsets };

  std::string entry() const { return fmt::format("tensor {}", in_quotes(tensor_.name)); }

  bool start_entry(std::string& name) {
    if (name == metadata_key) {
      if (std::exchange(seen_metadata_, true)) return refuse("__metadata__ twice");
      in_metadata_ = true;
      tensor_.name = name;
      return true;
    }
    tensor_ = tensor_info{};
    dtype_ = nullptr;
    seen_shape_ = false;
    offsets_.clear();
    seen_offsets_ = false;
    if (name.size() > limits::name_bytes_max) {
      return refuse(fmt::format("a tensor name of {} bytes, at most {} are allowed: {}",
                                name.size(), limits::name_bytes_max, in_quotes(name)));
    }
    if (has_control_bytes(name)) {
      return refuse(fmt::format("tensor {}: control characters in the name", in_quotes(name)));
    }
    tensor_.name = std::move(name);
    return true;
  }

  bool start_field(const std::string& name) {
    field_name_ = name;
    field_ = name == "dtype"          ? field::dtype
             : name == "shape"        ? field::shape
             : name == "data_offsets" ? field::offsets
                                      : field::none;
    const bool again = (field_ == field::dtype && dtype_ != nullptr) ||
                       (field_ == field::shape && std::exchange(seen_shape_, true)) ||
                       (field_ == field::offsets && std::exchange(seen_offsets_, true));
    if (again) return refuse(fmt::format("{}: field {} twice", entry(), in_quotes(name)));
    if (field_ == field::none) {
      return refuse(fmt::format("{}: field {}: only dtype, shape and data_offsets are allowed",
                                entry(), in_quotes(name)));
    }
    return true;
  }

  bool take_dtype(const nlohmann::json& value) {
    if (field_ != field::dtype || !value.is_string()) {
      return refuse(fmt::format("{}: field {} is {}: wrong type", entry(), in_quotes(field_name_),
                                described(value)));
    }
    dtype_ = find_dtype(value.get_ref<const std::string&>());
    if (dtype_ == nullptr) {
      return refuse(
          fmt::format("{}: dtype {} is not one of the format's", entry(), described(value)));
    }
    return true;
  }

  bool take_number(const nlohmann::json& value) {
    // Only unsigned integers up to int64's maximum: JSON's -1, 1.0 and 2^63 are all refused.
    constexpr std::uint64_t value_max = INT64_MAX;
    const bool shape = field_ == field::shape;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > value_max) {
      return refuse(fmt::format("{}: {} holds {}: give integers from 0 to {}", entry(), field_name_,
                                described(value), value_max));
    }
    const auto number = value.get<std::uint64_t>();
    if (shape && tensor_.shape.size() == safetensors_dimensions_max) {
      return refuse(
          fmt::format("{}: more than {} dimensions", entry(), safetensors_dimensions_max));
    }
    if (!shape && offsets_.size() == 2) {
      return refuse(fmt::format("{}: data_offsets needs two numbers, [begin, end]", entry()));
    }
    if (shape) {
      tensor_.shape.push_back(static_cast<std::int64_t>(number));
    } else {
      offsets_.push_back(number);
    }
    return true;
  }

  bool finish_tensor() {
    if (dtype_ == nullptr || !seen_shape_ || !seen_offsets_) {
      return refuse(fmt::format("{}: needs dtype, shape and data_offsets", entry()));
    }
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1]) {
      return refuse(
          fmt::format("{}: data_offsets needs two numbers, [begin, end] with begin <= "
                      "end",
                      entry()));
    }
    const auto needed = byte_span(tensor_.shape, dtype_->bits);
    const std::uint64_t given = offsets_[1] - offsets_[0];
    if (!needed) {
      return refuse(fmt::format("{}: shape [{}] of {} is no whole number of bytes below 2^61",
                                entry(), fmt::join(tensor_.shape, ", "), dtype_->name));
    }
    if (*needed != given) {
      return refuse(
          fmt::format("{}: shape [{}] of {} needs {} bytes, data_offsets [{}, {}] give "
                      "{}",
                      entry(), fmt::join(tensor_.shape, ", "), dtype_->name, *needed, offsets_[0],
                      offsets_[1], given));
    }
    if (tensors_.size() >= header_.tensors_max) {
      return refuse(fmt::format("more than {} tensors in the checkpoint", limits::tensors_max));
    }
    tensor_.dtype = dtype_->dtype;
    tensor_.offset = offsets_[0];
    tensor_.bytes = given;
    tensors_.push_back(std::move(tensor_));
    return true;
  }

  const safetensors_header& header_;
  std::vector<tensor_info>& tensors_;
  tensor_info tensor_;
  const dtype_name* dtype_ = nullptr;
  std::vector<std::uint64_t> offsets_;
  std::string field_name_;
  field field_ = field::none;
  bool seen_shape_ = false;
  bool seen_offsets_ = false;
  bool seen_metadata_ = false;
  bool in_metadata_ = false;
};

tl::unexpected<base::error> wrong(std::string_view path, std::string what) {
  return base::fail(base::error_code::invalid_argument, origin,
                    fmt::format("{}: {}", path, std::move(what)));
}

// Positions must tile the data section: a gap could hide bytes, an overlap would alias tensors.
base::result<void> check_tiling(std::vector<tensor_info>& tensors, const safetensors_header& header,
                                std::string_view path) {
  std::ranges::sort(tensors, [](const tensor_info& a, const tensor_info& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  std::uint64_t end = 0;
  for (tensor_info& tensor : tensors) {
    if (tensor.offset != end) {
      return wrong(path, fmt::format("tensor {}: its data begins at {}, where the one before ends "
                                     "at {}: tensors must follow each other without gap or overlap",
                                     in_quotes(tensor.name), tensor.offset, end));
    }
    end += tensor.bytes;  // no overflow: both are at most 2^63
    if (end > header.data_bytes) {
      return base::fail(base::error_code::data_loss, origin,
                        fmt::format("{}: tensor {} ends at {} of the data, the file has {} bytes "
                                    "of data: it is cut off, fetch it again",
                                    path, in_quotes(tensor.name), end, header.data_bytes));
    }
    tensor.offset += header.data_offset;
  }
  if (end != header.data_bytes) {
    return wrong(path, fmt::format("the tensors end at {} of the data, the file has {} bytes of "
                                   "data: bytes that belong to no tensor",
                                   end, header.data_bytes));
  }
  return {};
}

base::result<void> check_unique(std::span<const tensor_info> tensors, std::string_view path) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const tensor_info& tensor : tensors) names.push_back(tensor.name);
  std::ranges::sort(names);
  if (const auto it = std::ranges::adjacent_find(names); it != names.end()) {
    return wrong(path, fmt::format("tensor {} twice", in_quotes(*it)));
  }
  return {};
}

}  // namespace

base::result<std::uint64_t> safetensors_header_bytes(
    std::span<const std::byte, safetensors_prefix_bytes> prefix, std::string_view path) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < prefix.size(); ++i) {
    bytes |= std::to_integer<std::uint64_t>(prefix[i]) << (8 * i);
  }
  if (bytes > limits::header_bytes_max) {
    return wrong(path, fmt::format("its header claims {} bytes, at most {} are read: is it a "
                                   "safetensors file?",
                                   bytes, limits::header_bytes_max));
  }
  return bytes;
}

base::result<std::vector<tensor_info>> parse_safetensors(const safetensors_header& header,
                                                         std::string_view path) {
  if (!header.json.starts_with('{')) {
    return wrong(path, "its header does not begin with {: is it a safetensors file?");
  }
  std::vector<tensor_info> tensors;
  header_events events(header, tensors);
  TROUPE_TRY_VOID(events.run(header.json, limits::header_bytes_max, path));
  TROUPE_TRY_VOID(check_tiling(tensors, header, path));
  TROUPE_TRY_VOID(check_unique(tensors, path));
  return tensors;
}

}  // namespace troupe::models
