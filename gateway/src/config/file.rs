//! Reads the members of a file, and finds the files beside it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::entry::Entry;
use super::origin::Origin;
use super::report::ConfigError;

/// Most files beside the configuration file: more are a mistake.
const MAX_DROP_INS: usize = 1_000;

/// The members of a file in its order; of equal keys the last one, in the place of the first.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let content = fs::read(path).map_err(|reason| read_error(path, reason))?;
    // Some editors put a byte order mark before UTF-8.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content);
    let members: Members =
        serde_json::from_slice(content).map_err(|error| syntax_error(path, &error))?;
    let Members { values, duplicates } = members;
    let entries = values.into_iter().map(|(name, value)| Entry {
        origin: Origin::File(path.to_owned()),
        is_duplicate: duplicates.contains(&name),
        name,
        value,
    });
    Ok(entries.collect())
}

/// The directory whose files are read after `path`: the same name with `.d` behind it.
pub fn drop_in_directory(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".d");
    PathBuf::from(name)
}

/// The files of that directory, in the byte order of their names. Without the directory there are
/// none; hidden files and those that do not end in `.conf` are left out, as a shell's `*.conf` does.
pub(super) fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let directory = drop_in_directory(path);
    let failed = |reason| read_error(&directory, reason);
    let listed = match fs::read_dir(&directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_bytes();
        if bytes.ends_with(b".conf") && !bytes.starts_with(b".") {
            names.push(name);
        }
        if names.len() > MAX_DROP_INS {
            let most = format!("there are more than {MAX_DROP_INS} files in it");
            return Err(failed(io::Error::other(most)));
        }
    }
    // Names of systems like Unix are compared byte by byte.
    names.sort_unstable();
    Ok(names.iter().map(|name| directory.join(name)).collect())
}

fn read_error(path: &Path, reason: io::Error) -> ConfigError {
    ConfigError::Read {
        path: path.to_owned(),
        reason,
    }
}

fn syntax_error(path: &Path, error: &serde_json::Error) -> ConfigError {
    let message = error.to_string();
    let reason = match error.classify() {
        Category::Data => "expected a JSON object",
        _ => message
            .rsplit_once(" at line ")
            .map_or(message.as_str(), |(reason, _)| reason),
    };
    ConfigError::Syntax {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: reason.to_owned(),
    }
}

/// The members of the file's object; of equal keys the last one.
struct Members {
    values: Map<String, Value>,
    duplicates: Vec<String>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members {
                    values: Map::new(),
                    duplicates: Vec::new(),
                };
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if members.values.insert(key.clone(), value).is_some() {
                        members.duplicates.push(key);
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_it_come_in_the_byte_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.conf");
        assert!(drop_ins(&path).unwrap().is_empty());
        let directory = drop_in_directory(&path);
        assert_eq!(directory, folder.path().join("gateway.conf.d"));
        fs::create_dir(&directory).unwrap();
        for name in [
            "b.conf",
            "a.conf",
            "B.conf",
            "10.conf",
            "9.conf",
            ".hidden.conf",
            "a.conf.dpkg-new",
            "a.json",
            "conf",
            "é.conf",
        ] {
            fs::write(directory.join(name), "{}").unwrap();
        }
        let names = drop_ins(&path).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            ["10.conf", "9.conf", "B.conf", "a.conf", "b.conf", "é.conf"]
        );
    }

    #[test]
    fn what_is_no_directory_or_has_no_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.conf");
        let directory = drop_in_directory(&path);
        fs::write(&directory, "").unwrap();
        let told = drop_ins(&path).unwrap_err().to_string();
        assert!(told.contains("gateway.conf.d: Not a directory"), "{told}");
        fs::remove_file(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        for at in 0..=MAX_DROP_INS {
            fs::write(directory.join(format!("{at}.conf")), "").unwrap();
        }
        let told = drop_ins(&path).unwrap_err().to_string();
        assert!(told.ends_with("more than 1000 files in it"), "{told}");
        fs::remove_file(directory.join("7.conf")).unwrap();
        assert_eq!(drop_ins(&path).unwrap().len(), MAX_DROP_INS);
    }
}
