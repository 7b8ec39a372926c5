// The function table of one lanes type. Included once by each ring/kernels_*.cpp, which alone are compiled for their
// instruction set; everything here has internal linkage, so that no such code can leak into portable files.
#pragma once

#include "ring/embedding.hpp"
#include "ring/fused.hpp"
#include "ring/kernels.hpp"
#include "ring/ntt.hpp"
#include "ring/periodic.hpp"
#include "ring/pointwise.hpp"
#include "ring/small.hpp"
#include "ring/weighted.hpp"

namespace lattice {
namespace {

template <class V>
constexpr Kernels make_kernels() {
    Kernels k{};
    k.forward = forward_ntt<V>;
    k.inverse = inverse_ntt_plain<V>;
    k.add = add_all<V>;
    k.sub = sub_all<V>;
    k.neg = neg_all<V>;
    k.mul = mul_all<V>;
    k.mul_add = mul_add_all<V>;
    k.mul_sub = mul_sub_all<V>;
    k.mul_scalar = mul_scalar_all<V>;
    k.from_small = residues_of_small;
    k.centred_binomial = centred_binomial;
    k.permute = permute_all<V>;
    k.tensor = tensor_all<V>;
    k.inverse_centred = inverse_centred<V>;
    k.scale_centred = scale_centred<V>;
    k.convert = convert_all<V>;
    k.forward_converted = forward_converted<V>;
    k.leaf_to_residues = leaf_to_residues<V>;
    k.leaf_to_lazies = leaf_to_lazies<V>;
    k.weighted_sum = weighted_sum<V>;
    k.periodic_tile = periodic_tile<V>;
    k.add_permuted = add_permuted<V>;
    k.leaf_of_products = leaf_of_products<V>;
    k.leaf_to_quotient = leaf_to_quotient<V>;
    k.to_lazies = to_lazies<V>;
    k.gadget = gadget<V>;
    k.embed_slots = embed_slots<V>;
    k.round_reals = round_reals<V>;
    k.residues_of_reals = residues_of_reals<V>;
    k.leaf_log = leaf_log;
    k.encode = V::encode;
    k.radix_bits = V::kRadixBits;
    k.lanes = V::kLanes;
    k.computes_lane_factors = V::kComputesLaneFactors;
    k.residues_are_lazies = !V::kSigned;
    k.smallest_log_n = V::kTailLog + 1;
    return k;
}

}  // namespace
}  // namespace lattice
