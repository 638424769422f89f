//! Where a kernel keeps what `unix_host_verdict` reads of sockets: its own type information says.
//!
//! The format is that of Documentation/bpf/btf.rst. It is read from one end to the other, without
//! making anything of the 100,000 types and more that nobody asks for.

use std::fs;
use std::io;

/// The kernel's types, which everybody may read.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC`, in the byte order of this machine.
const MAGIC: u16 = 0xeb9f;
/// Bytes of a type before what only its kind has, and of a member of a structure.
const TYPE: usize = 12;
const MEMBER: usize = 12;
/// Members of structures with this bit may be bit fields.
const HAS_BIT_FIELDS: u32 = 1 << 31;

/// Offsets in the kernel's structures, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// Of a Unix socket's peer, from the socket.
    pub(super) peer: u64,
    /// Of a socket's cookie.
    pub(super) cookie: u64,
    /// Of the bytes that are charged to a socket's send buffer.
    pub(super) charged: u64,
}

impl Offsets {
    /// Those of the running kernel. Fails where it has no type information, or other structures.
    pub(super) fn of_kernel() -> io::Result<Self> {
        Self::read(&fs::read(KERNEL)?)
    }

    fn read(types: &[u8]) -> io::Result<Self> {
        let types = Types::read(types).ok_or_else(|| invalid("no type information"))?;
        let mut found = WANTED.map(|_| None);
        types.each_member(|structure, member, offset| {
            let wanted =
                |(name, of): &(&str, &str)| name.as_bytes() == structure && of.as_bytes() == member;
            if let Some(place) = WANTED.iter().position(wanted) {
                found[place].get_or_insert(u64::from(offset));
            }
        });
        let [
            Some(peer),
            Some(sock),
            Some(charged),
            Some(common),
            Some(cookie),
        ] = found
        else {
            return Err(invalid("a structure of sockets is another one"));
        };
        Ok(Self {
            peer,
            cookie: common + cookie,
            charged: sock + charged,
        })
    }
}

/// Structures and members whose offsets are wanted.
const WANTED: [(&str, &str); 5] = [
    ("unix_sock", "peer"),
    ("unix_sock", "sk"),
    ("sock", "sk_wmem_alloc"),
    ("sock", "__sk_common"),
    ("sock_common", "skc_cookie"),
];

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{KERNEL}: {reason}"))
}

/// The two parts of the format.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn read(all: &'a [u8]) -> Option<Self> {
        let magic = all.first_chunk().map(|magic| u16::from_ne_bytes(*magic));
        if magic != Some(MAGIC) {
            return None;
        }
        let number = |at| usize::try_from(number(all, at)?).ok();
        let parts = all.get(number(4)?..)?;
        let part = |offset: usize, len| parts.get(offset..)?.get(..len);
        Some(Self {
            types: part(number(8)?, number(12)?)?,
            strings: part(number(16)?, number(20)?)?,
        })
    }

    /// Shows each member of a structure that has a name and begins with a byte: names of both, and
    /// its offset in bytes. What the format does not allow ends it.
    fn each_member(&self, mut see: impl FnMut(&[u8], &[u8], u32)) {
        let mut rest = self.types;
        while let Some((name, info)) = number(rest, 0).zip(number(rest, 4)) {
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let Some(own) = rest.get(TYPE..) else { return };
            let Some(len) = length(kind, count) else {
                return;
            };
            let Some((own, others)) = own.split_at_checked(len) else {
                return;
            };
            rest = others;
            if kind != STRUCT {
                continue;
            }
            let Some(structure) = self.string(name) else {
                return;
            };
            for member in own.chunks_exact(MEMBER) {
                let (Some(name), Some(place)) = (number(member, 0), number(member, 8)) else {
                    return;
                };
                let bits = if info & HAS_BIT_FIELDS == 0 {
                    place
                } else {
                    place & 0x00ff_ffff
                };
                if let Some(name) = self.string(name)
                    && bits % 8 == 0
                {
                    see(structure, name, bits / 8);
                }
            }
        }
    }

    fn string(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(usize::try_from(at).ok()?..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

const STRUCT: u32 = 4;

/// Bytes behind a type of this kind with so many parts; `None`: a kind that is not known.
fn length(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Pointers, forward declarations, names of types and the like, functions, floats.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, enumerations of 64 bits.
        STRUCT | 5 | 15 | 19 => 12 * count,
        // Enumerations, prototypes.
        6 | 13 => 8 * count,
        _ => return None,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str =
        "\0unix_sock\0sk\0peer\0sock\0__sk_common\0sk_wmem_alloc\0sock_common\0skc_cookie\0";

    fn name(of: &str) -> u32 {
        let at = NAMES.find(&format!("\0{of}\0")).unwrap() + 1;
        u32::try_from(at).unwrap()
    }

    /// A structure with members at these bits.
    fn structure(of: &str, flags: u32, members: &[(&str, u32)]) -> Vec<u32> {
        let count = u32::try_from(members.len()).unwrap();
        let mut words = vec![name(of), STRUCT << 24 | count | flags, 0];
        for (member, bits) in members {
            words.extend([name(member), 0, *bits]);
        }
        words
    }

    fn file(types: &[Vec<u32>]) -> Vec<u8> {
        let types: Vec<u8> = types
            .concat()
            .iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect();
        let [types_len, names_len] = [types.len(), NAMES.len()].map(|l| u32::try_from(l).unwrap());
        let mut all = MAGIC.to_ne_bytes().to_vec();
        all.extend([1, 0]);
        for word in [24, 0, types_len, types_len, names_len] {
            all.extend(word.to_ne_bytes());
        }
        all.extend(types);
        all.extend(NAMES.as_bytes());
        all
    }

    fn sockets() -> Vec<Vec<u32>> {
        vec![
            // An integer and an array, which have something behind them.
            vec![0, 1 << 24, 4, 32],
            vec![0, 3 << 24, 0, 1, 1, 7],
            structure("unix_sock", 0, &[("sk", 0), ("peer", 8 * 872)]),
            structure(
                "sock",
                HAS_BIT_FIELDS,
                &[("__sk_common", 64), ("sk_wmem_alloc", 8 * 380)],
            ),
            structure("sock_common", 0, &[("skc_cookie", 8 * 88)]),
        ]
    }

    #[test]
    fn offsets_are_those_of_the_structures() {
        let offsets = Offsets::read(&file(&sockets())).unwrap();
        let expected = Offsets {
            peer: 872,
            cookie: 96,
            charged: 380,
        };
        assert_eq!(offsets, expected);
    }

    #[test]
    fn what_is_cut_off_or_something_else_has_no_offsets() {
        let whole = file(&sockets());
        for len in 0..whole.len() {
            assert!(Offsets::read(&whole[..len]).is_err(), "{len}");
        }
        let mut other = whole;
        other[0] ^= 1;
        assert!(Offsets::read(&other).is_err());
        let unknown = file(&[vec![0, 31 << 24, 0], sockets().concat()]);
        assert!(Offsets::read(&unknown).is_err());
        let without_sock = file(&sockets()[..3]);
        assert!(Offsets::read(&without_sock).is_err());
    }
}
