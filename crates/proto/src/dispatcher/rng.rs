//! Random numbers from a seed.

/// A small generator of our own to keep entropy out of the machine: SplitMix64, by Steele, Lea and
/// Flood (2014).
#[derive(Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    /// From 0 up to, but without, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Any number.
    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
