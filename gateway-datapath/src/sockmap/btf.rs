//! Where members of the kernel's structures lie, as the kernel itself tells in BTF
//! (Documentation/bpf/btf.rst): it differs from one build to the next.
//!
//! What is needed of the format is little, and it is the kernel that writes it. The libraries that
//! read it are under the LGPL, or hide what is asked for here.

use std::fs;
use std::io;

/// The kernel's own description.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Length of the header up to what is needed of it, in bytes.
const HEADER: usize = 24;
/// Length of what each type begins with, in bytes.
const TYPE: usize = 12;
/// Length of a member of a structure, in bytes.
const MEMBER: usize = 12;
const STRUCT: u32 = 4;

/// Why it is not known where a member lies.
#[derive(Debug, thiserror::Error)]
pub(super) enum BtfError {
    #[error("{KERNEL}: {0}")]
    Read(#[from] io::Error),
    #[error("{KERNEL} is not in a form that is known")]
    Form,
    #[error("{KERNEL} tells of no {0}")]
    Missing(String),
}

/// Where in the kernel's structure of this name these members lie, in bytes from its start.
pub(super) fn kernel_offsets<const N: usize>(
    structure: &str,
    members: [&str; N],
) -> Result<[u64; N], BtfError> {
    offsets(&fs::read(KERNEL)?, structure, members)
}

fn offsets<const N: usize>(
    btf: &[u8],
    structure: &str,
    members: [&str; N],
) -> Result<[u64; N], BtfError> {
    let (types, strings) = sections(btf).ok_or(BtfError::Form)?;
    let found = find(types, strings, structure)?;
    let mut offsets = [0; N];
    for (offset, member) in offsets.iter_mut().zip(members) {
        let place = found.offset(strings, member);
        *offset = place.ok_or_else(|| BtfError::Missing(format!("{structure}.{member}")))?;
    }
    Ok(offsets)
}

/// The types, and the names.
fn sections(btf: &[u8]) -> Option<(&[u8], &[u8])> {
    let magic: [u8; 2] = btf.get(..2)?.try_into().ok()?;
    if u16::from_ne_bytes(magic) != MAGIC {
        return None;
    }
    let at = |place: usize| word(btf, place).and_then(|word| usize::try_from(word).ok());
    let body = btf.get(at(4)?.max(HEADER)..)?;
    let section = |from: usize, len: usize| body.get(from..from.checked_add(len)?);
    Some((section(at(8)?, at(12)?)?, section(at(16)?, at(20)?)?))
}

/// Looks through all types.
fn find<'a>(
    mut types: &'a [u8],
    strings: &[u8],
    structure: &str,
) -> Result<Structure<'a>, BtfError> {
    let form = || BtfError::Form;
    while !types.is_empty() {
        let info = word(types, 4).ok_or_else(form)?;
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        // `btf_type` of include/uapi/linux/btf.h tells what follows each kind.
        let rest = match kind {
            1 | 14 | 17 => 4,
            2 | 7..=12 | 16 | 18 => 0,
            3 => 12,
            4 | 5 | 15 | 19 => count * MEMBER,
            6 | 13 => count * 8,
            _ => return Err(BtfError::Form),
        };
        let members = types.get(TYPE..TYPE + rest).ok_or_else(form)?;
        let named = word(types, 0).and_then(|at| name(strings, at));
        if kind == STRUCT && named == Some(structure.as_bytes()) {
            let has_bit_fields = info >> 31 != 0;
            return Ok(Structure {
                members,
                has_bit_fields,
            });
        }
        types = &types[TYPE + rest..];
    }
    Err(BtfError::Missing(structure.to_owned()))
}

/// The members of a structure.
struct Structure<'a> {
    members: &'a [u8],
    /// Places hold the lengths of bit fields as well.
    has_bit_fields: bool,
}

impl Structure<'_> {
    /// `None`: there is no such member, or it does not begin with a byte.
    fn offset(&self, strings: &[u8], member: &str) -> Option<u64> {
        let mut members = self.members.chunks_exact(MEMBER);
        let found = members.find(|entry| {
            let named = word(entry, 0).and_then(|at| name(strings, at));
            named == Some(member.as_bytes())
        })?;
        let place = word(found, 8)?;
        let bits = if self.has_bit_fields {
            place & 0x00ff_ffff
        } else {
            place
        };
        (bits % 8 == 0).then_some(u64::from(bits / 8))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn name(strings: &[u8], at: u32) -> Option<&[u8]> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    rest.split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description of an `int`, a pointer to it and `struct pair { int one; int *two; }`.
    fn description() -> Vec<u8> {
        let strings = b"\0int\0pair\0one\0two\0";
        let types: [u32; 16] = [
            // The number, then the pointer.
            1,
            1 << 24,
            4,
            32,
            0,
            2 << 24,
            1, // The structure and its members.
            5,
            (4 << 24) | 2,
            16,
            10,
            1,
            0,
            14,
            2,
            64,
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let len = u32::try_from(types.len()).unwrap();
        let mut btf = MAGIC.to_ne_bytes().to_vec();
        btf.extend([1, 0]);
        for word in [24, 0, len, len, u32::try_from(strings.len()).unwrap()] {
            btf.extend(word.to_ne_bytes());
        }
        [btf, types, strings.to_vec()].concat()
    }

    #[test]
    fn members_are_found_where_they_lie() {
        let btf = description();
        assert_eq!(offsets(&btf, "pair", ["two", "one"]).unwrap(), [8, 0]);
        for (structure, member, missing) in [
            ("pair", "three", "pair.three"),
            ("int", "one", "int"),
            ("other", "one", "other"),
        ] {
            match offsets(&btf, structure, [member]) {
                Err(BtfError::Missing(what)) => assert_eq!(what, missing),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_an_error() {
        let btf = description();
        for len in 0..btf.len() {
            assert!(offsets(&btf[..len], "pair", ["two"]).is_err(), "{len}");
        }
    }

    #[test]
    fn this_kernel_tells_of_its_connections() {
        let [written, unread] = kernel_offsets("tcp_sock", ["write_seq", "copied_seq"]).unwrap();
        assert!(written > 0 && unread > 0 && written != unread);
    }
}
