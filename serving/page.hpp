// The page at `/`: one HTML file, linked in (serving/page/index.html), with a content security
// policy that lets exactly its own style and script run and nothing be loaded from elsewhere.
#pragma once

#include <string>
#include <string_view>

namespace troupe::serving {

[[nodiscard]] std::string_view page_html() noexcept;

// The value of its Content-Security-Policy field: the page's one <style> and one <script> by their
// SHA-256. Cost: two hashes of the page; made once.
[[nodiscard]] std::string page_policy();

}  // namespace troupe::serving
