//! Unmasking of client payload (RFC 6455, section 5.3).

/// Applies `mask` to `bytes`, whose first byte stands at `offset` of its frame's payload.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4], offset: u64) {
    // Only the offset's low two bits matter; rotating once keeps the loop free of indexing.
    let mut mask = mask;
    mask.rotate_left((offset % 4) as usize);
    let word = u32::from_ne_bytes(mask);
    let wide = u64::from(word) << 32 | u64::from(word);
    // The fixed width lets the compiler use vector registers.
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut value = [0; 8];
        value.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(value) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_at_every_length_and_offset() {
        let mask = [0x11, 0x22, 0x44, 0x88];
        for offset in 0..8_usize {
            for len in 0..70 {
                let mut bytes: Vec<u8> = (0..len).collect();
                let expected: Vec<u8> = bytes
                    .iter()
                    .enumerate()
                    .map(|(i, byte)| byte ^ mask[(i + offset) % 4])
                    .collect();
                apply(&mut bytes, mask, offset as u64);
                assert_eq!(bytes, expected, "offset {offset}, length {len}");
            }
        }
    }
}
