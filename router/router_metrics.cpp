#include "router/router_metrics.hpp"

#include <functional>

#include "serving/metrics_text.hpp"

namespace troupe::router {
namespace {

using serving::label_value;
using serving::metrics_text;

void each_gang(metrics_text& out, const metrics_parts& parts, const char* name, const char* type,
               const char* help, const std::function<double(const gang&)>& value) {
  out.family(name, type, help);
  for (const auto& one : parts.gangs) {
    out.bare_sample(name, "gang=" + label_value(one->place.name), value(*one));
  }
}

}  // namespace

std::string metrics_page(const metrics_parts& parts) {
  metrics_text out("version=" + label_value(parts.version));
  each_gang(out, parts, "troupe_router_gang_ready", "gauge", "1 where the gang takes requests.",
            [](const gang& one) { return one.takes() ? 1.0 : 0.0; });
  each_gang(out, parts, "troupe_router_gang_open_requests", "gauge", "Requests that the gang has.",
            [](const gang& one) { return static_cast<double>(one.open_requests); });
  each_gang(out, parts, "troupe_router_gang_outstanding_tokens", "gauge",
            "Estimated tokens of its open requests: prompts not computed, answers not come.",
            [](const gang& one) { return static_cast<double>(one.outstanding_tokens); });
  each_gang(out, parts, "troupe_router_gang_requests_total", "counter",
            "Requests sent to the gang.",
            [](const gang& one) { return static_cast<double>(one.counted.requests); });
  each_gang(out, parts, "troupe_router_gang_completed_total", "counter",
            "Requests that the gang answered to the end, with any status but 429 and 503.",
            [](const gang& one) { return static_cast<double>(one.counted.completed); });
  each_gang(out, parts, "troupe_router_gang_refused_total", "counter",
            "Requests that the gang answered with 429 or 503.",
            [](const gang& one) { return static_cast<double>(one.counted.refused); });
  each_gang(out, parts, "troupe_router_gang_lost_total", "counter",
            "Requests under which the gang was lost.",
            [](const gang& one) { return static_cast<double>(one.counted.lost); });
  const router_counters& counted = parts.counters;
  out.gauge("troupe_router_open_requests", "Requests that are not answered in full.",
            static_cast<double>(parts.open));
  out.gauge("troupe_router_waiting_requests", "Requests that wait for a gang to be ready.",
            static_cast<double>(parts.waiting));
  out.counter("troupe_router_retries_total", "Attempts after the first one of a request.",
              static_cast<double>(counted.retries));
  out.counter("troupe_router_gave_up_total",
              "Requests answered with 503: no gang in time, or lost too often.",
              static_cast<double>(counted.gave_up));
  out.counter("troupe_router_cut_streams_total",
              "Streams whose gang was lost after the first token.",
              static_cast<double>(counted.cut_streams));
  out.counter("troupe_router_cancelled_total", "Requests whose client went away.",
              static_cast<double>(counted.cancelled));
  out.gauge("troupe_router_http_connections", "Open connections of clients.",
            static_cast<double>(parts.http.connections));
  out.counter("troupe_router_http_slow_readers_total", "Clients cut because they did not read.",
              static_cast<double>(parts.http.cut_slow));
  return out.take();
}

}  // namespace troupe::router
