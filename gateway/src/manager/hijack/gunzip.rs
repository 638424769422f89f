//! Bodies with content coding `gzip`.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::HijackError;

/// Bytes inflated at a time.
const CHUNK: usize = 8_192;

/// Decompresses a body with content coding `gzip`, to at most `limit` bytes.
///
/// Fails when the data is damaged or cut off, or longer than the limit; no more than the limit
/// is ever kept in memory.
pub fn gunzip(body: &[u8], limit: usize) -> Result<Vec<u8>, HijackError> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut inflated = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let count = decoder.read(&mut chunk).map_err(|_| HijackError::Gzip)?;
        if count == 0 {
            return Ok(inflated);
        }
        let needed = inflated.len() + count;
        if needed > limit {
            return Err(HijackError::TooLong { limit });
        }
        if needed > inflated.capacity() {
            let capacity = needed.max((2 * inflated.capacity()).min(limit));
            inflated.reserve_exact(capacity - inflated.len());
        }
        inflated.extend_from_slice(&chunk[..count]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gunzip_restores_the_body_up_to_the_limit() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 100_000] {
            let content: Vec<u8> = (0..=250).cycle().take(length).collect();
            let compressed = gzip(&content);
            let inflated = gunzip(&compressed, length).unwrap();
            assert_eq!(inflated, content);
            assert!(inflated.capacity() <= length);
            if length > 0 {
                assert_eq!(
                    gunzip(&compressed, length - 1),
                    Err(HijackError::TooLong { limit: length - 1 })
                );
            }
        }
    }

    #[test]
    fn gunzip_joins_members() {
        let compressed = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
        assert_eq!(gunzip(&compressed, 100).unwrap(), b"{\"a\":1}");
    }

    #[test]
    fn gunzip_refuses_damaged_data() {
        let compressed = gzip(b"some content that is long enough to be cut");
        for length in 0..compressed.len() {
            assert_eq!(
                gunzip(&compressed[..length], 100),
                Err(HijackError::Gzip),
                "{length}"
            );
        }
        let mut wrong_checksum = compressed.clone();
        let position = compressed.len() - 8;
        wrong_checksum[position] ^= 1;
        assert_eq!(gunzip(&wrong_checksum, 100), Err(HijackError::Gzip));
        assert_eq!(gunzip(b"{\"a\":1}", 100), Err(HijackError::Gzip));
        assert_eq!(
            gunzip(&[&compressed[..], b"garbage"].concat(), 100),
            Err(HijackError::Gzip)
        );
    }

    #[test]
    fn gunzip_stops_a_bomb_at_the_limit() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(
            gunzip(&bomb, 1 << 20),
            Err(HijackError::TooLong { limit: 1 << 20 })
        );
    }
}
