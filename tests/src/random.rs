//! Random choices that a seed repeats everywhere, and how tests are told to make more of them.

/// A small generator (xorshift64*, Marsaglia and Vigna).
pub struct Random(u64);

impl Random {
    /// Seeded by `THANOSQL_SEED`, or else by `seed`; prints which it is.
    pub fn from_environment(seed: u64) -> Random {
        let seed = number("THANOSQL_SEED", seed);
        println!("seed {seed}");
        Random(seed)
    }

    /// A number from 0 on below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A seed that every run has for itself.
pub fn clock_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64 | 1)
}

/// A number that a variable of the environment may set.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}
