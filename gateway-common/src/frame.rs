//! Headers of the frames that the gateway sends (RFC 6455, section 5.2).

/// Largest payload of a frame sent to a client, in bytes.
///
/// The flexVDI client drops its session at a frame of 131,072 B; half of that leaves room.
pub const MAX_PAYLOAD: usize = 65_536;

/// Longest header of an unmasked frame, in bytes.
pub const MAX_HEADER: usize = 10;

/// First byte of an unfragmented binary frame: FIN and opcode 2.
pub const FIN_BINARY: u8 = 0x82;

/// Length in bytes of the shortest header for an unmasked frame with `payload` bytes.
pub const fn header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => MAX_HEADER,
    }
}

/// Writes the header of an unmasked frame at the start of `out`; returns its length in bytes.
///
/// The shortest length encoding is used, as RFC 6455 section 5.2 demands. The bytes of `out`
/// behind the header are left unspecified.
pub const fn write_header(out: &mut [u8; MAX_HEADER], first_byte: u8, payload: usize) -> usize {
    out[0] = first_byte;
    let length = (payload as u64).to_be_bytes();
    match header_len(payload) {
        2 => {
            out[1] = length[7];
            2
        }
        4 => {
            out[1] = 126;
            out[2] = length[6];
            out[3] = length[7];
            4
        }
        _ => {
            out[1] = 127;
            let mut i = 0;
            while i < 8 {
                out[2 + i] = length[i];
                i += 1;
            }
            MAX_HEADER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_encoding_at_each_border() {
        for (payload, expected) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = [0; MAX_HEADER];
            let len = write_header(&mut out, FIN_BINARY, payload);
            assert_eq!(&out[..len], expected);
            assert_eq!(len, header_len(payload));
        }
    }
}
