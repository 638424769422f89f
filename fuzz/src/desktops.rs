//! The file with desktops: whatever stands in it is read, or refused with a message.

use gateway::fuzzing::desktops;

/// The file's content.
pub fn run(bytes: &[u8]) {
    match desktops(bytes) {
        Ok(inventory) => {
            assert!(!inventory.summary().is_empty());
            // A member that nobody knows is never let through.
            let mut more = bytes.to_vec();
            if let Some(end) = more.iter().rposition(|byte| *byte == b'}') {
                more.splice(end..end, *b",\"unknown\":1");
                assert!(desktops(&more).is_err());
            }
        }
        Err(told) => {
            assert!(!told.is_empty());
            assert!(told.lines().count() <= 101, "{told}");
        }
    }
}
