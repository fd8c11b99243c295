//! Randomness: a cheap sequence for the order of answers, the kernel's for what nobody may guess.

use std::sync::atomic::{AtomicU64, Ordering};

/// The sequence splitmix64, shared without a lock.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Every order is as likely as any other.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let among = last as u64 + 1;
            let chosen = usize::try_from(self.next() % among).unwrap_or(last);
            items.swap(last, chosen);
        }
    }
}

/// Sixteen bits that nobody can foresee.
pub fn secret() -> u16 {
    let mut bytes = [0; 2];
    // Linux fails only before its first entropy, or without the system call; then the address of
    // the answer's socket alone is unknown to others.
    let _ = getrandom::fill(&mut bytes);
    u16::from_ne_bytes(bytes)
}

/// Where a sequence begins.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_comes_first_about_as_often() {
        let dice = Dice::new(7);
        let mut first = [0u32; 3];
        for _ in 0..3_000 {
            let mut items = [0, 1, 2];
            dice.shuffle(&mut items);
            first[items[0]] += 1;
        }
        assert!(
            first.iter().all(|count| (900..1_100).contains(count)),
            "{first:?}"
        );
    }
}
