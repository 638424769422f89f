//! A pool's keys and tickets: any text is a file of keys or is refused, and a ticket that opens is
//! the same after it was sealed again.

use gateway::fuzzing::pool_keys;

use crate::input::Input;

/// The key of the tickets among the seeds, good for nothing else.
const KEYS: &str = "flexvdi-gateway-pool-keys 1\nkey AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n";

/// A byte that says whether a file of keys follows or a ticket.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let is_file = input.byte() & 1 == 0;
    let Ok(text) = std::str::from_utf8(input.rest()) else {
        return;
    };
    if is_file {
        if let Some(keys) = pool_keys(text) {
            assert!((1..=16).contains(&keys.count()));
            let trailing = format!("{text}\n# nothing\n\n");
            let more = pool_keys(&trailing).expect("comments say nothing");
            assert_eq!(more.count(), keys.count());
        }
        return;
    }
    let keys = pool_keys(KEYS).expect("a good key");
    if let Ok(contents) = keys.open(text)
        && let Ok(again) = keys.seal(&contents)
    {
        assert_ne!(again, text, "a nonce was used twice");
        assert_eq!(keys.open(&again), Ok(contents));
    }
}
