//! The configuration file: whatever stands in it is taken or refused with a message, and what is
//! in effect makes a file that means the same.

use std::fs;
use std::path::PathBuf;

use gateway::config::{ConfigError, Loaded, effective_json, load};

/// The file's content.
pub fn run(bytes: &[u8]) {
    let loaded = match loaded(bytes) {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    for warning in &loaded.warnings {
        assert!(!warning.to_string().is_empty());
    }
    let effective = effective_json(&loaded.config).to_string();
    let again = self::loaded(effective.as_bytes()).expect("what is in effect is a configuration");
    assert!(again.warnings.is_empty(), "{:?}", again.warnings);
    assert_eq!(effective_json(&again.config).to_string(), effective);
}

fn loaded(content: &[u8]) -> Result<Loaded, ConfigError> {
    // In memory, where there is such a folder; several targets may run at the same time.
    let name = format!("gateway-fuzz-{}.conf", std::process::id());
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let path = folder.join(name);
    fs::write(&path, content).expect("a file can be written");
    let loaded = load(&path);
    fs::remove_file(&path).expect("the file is there");
    loaded
}
