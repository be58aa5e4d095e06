// The one order in which floats of several ranks are added: a binary tree, neighbour first,
// ((0+1)+(2+3))+((4+5)+(6+7)). Every sum of the product over canonical runs or ranks ends here or
// has this shape, which is why it has the same bits at 1, 2, 4 and 8 ranks.
//
// Which operand stands left does not change the bits of a sum, except which NaN survives when two
// different NaNs meet; the shape of the tree does. Denormals count: no thread of ours sets FTZ/DAZ.
#pragma once

#include <span>

namespace troupe::transport {

// out[i] = the tree over sources[0][i], sources[1][i], ... One source is a copy (-0.0 stays).
// Shape: sources.size() is a power of two up to 64; each source has out.size() floats; none
// overlaps `out`.
// Cost: memory-bound; one pass over the sources.
void tree_sum(std::span<const float* const> sources, std::span<float> out);

// values[i] += other[i]: one node of the tree. Shape: equal sizes, no overlap.
void add_to(std::span<float> values, std::span<const float> other);

}  // namespace troupe::transport
