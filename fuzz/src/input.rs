//! Takes an input apart.

/// What is left of an input; at its end everything is zero.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Cuts `bytes` into pieces whose lengths follow from `seed`; 0 cuts off each byte.
pub(crate) fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Numerical Recipes' generator: small pieces mostly, now and then a large one.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match (seed, state >> 28) {
            (0, _) | (_, 0..5) => 1,
            (_, kind @ 5..12) => kind as usize - 3,
            (_, kind) => (state >> 12 & 0xff) as usize * (kind as usize - 11) + 1,
        };
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
