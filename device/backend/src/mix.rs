// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! Randomness that is the same each time.

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the input changes
/// about half of those that come out. For numbers that depend on a seed and a place, and on nothing else.
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_outputs() {
        // The first of a generator that begins at 1234567, as in other implementations' tests.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
    }
}
