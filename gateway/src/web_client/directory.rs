//! Reads spice-html5 from a directory of the system into memory.

use std::collections::HashMap;
use std::fs::{self, File as OpenFile};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{File, Unusable};

/// What the page loads first.
pub(super) const ENTRY: &str = "main.js";
/// Where releases keep their modules; Debian's package has them at the top.
const SOURCES: &str = "src";

/// Most files and folders that are looked at. Debian's package has some 40.
pub(super) const MAX_ENTRIES: usize = 500;
/// Most bytes of all files together. Debian's package has 2.2 million.
pub(super) const MAX_BYTES: u64 = 16 << 20;
/// Most folders inside each other.
const MAX_DEPTH: usize = 8;

/// All scripts and style sheets below the directory, by their relative paths.
///
/// Left out are names that begin with a dot, whatever lies outside once links are followed, linked
/// folders, and everything that is no regular file. Pages are left out as well: they were written
/// for servers on which nobody logs in, and one of them shows as HTML what its address says.
pub(super) fn read(directory: &Path) -> Result<HashMap<String, File>, Unusable> {
    let root =
        fs::canonicalize(directory).map_err(|error| Unusable::Unreadable(error.to_string()))?;
    let sources = root.join(SOURCES);
    let root = if !root.join(ENTRY).is_file() && sources.join(ENTRY).is_file() {
        fs::canonicalize(&sources).map_err(unreadable(&sources))?
    } else {
        root
    };
    let mut reading = Reading {
        root: &root,
        files: HashMap::new(),
        entries: 0,
        bytes: 0,
    };
    reading.folder(&root, 0)?;
    let entry = reading.files.get(ENTRY).ok_or(Unusable::NotThere)?;
    let is_module = std::str::from_utf8(&entry.bytes)
        .is_ok_and(|text| text.contains("SpiceMainConn") && text.contains("export {"));
    if is_module {
        Ok(reading.files)
    } else {
        Err(Unusable::NotThere)
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.display().to_string();
    move |error| Unusable::Unreadable(format!("{path}: {error}"))
}

struct Reading<'a> {
    root: &'a Path,
    files: HashMap<String, File>,
    entries: usize,
    bytes: u64,
}

impl Reading<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), Unusable> {
        if depth > MAX_DEPTH {
            return Err(Unusable::TooLarge);
        }
        for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
            let entry = entry.map_err(unreadable(folder))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Unusable::TooLarge);
            }
            let path = entry.path();
            // Does not follow links.
            let kind = entry.file_type().map_err(unreadable(&path))?;
            if is_hidden(&path) {
                continue;
            }
            if kind.is_dir() {
                self.folder(&path, depth + 1)?;
            } else if let Some(name) = self.name(&path)
                && let Some(kind) = content_type(&path)
                && let Some(target) = self.inside(&path)
            {
                let bytes = self.bytes_of(&target)?;
                self.files.insert(name, File::new(kind, bytes));
            }
        }
        Ok(())
    }

    /// The path that browsers ask for; `None`: no path of theirs can name it.
    fn name(&self, path: &Path) -> Option<String> {
        let name = path.strip_prefix(self.root).ok()?.to_str()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        name.bytes().all(fits).then(|| name.to_owned())
    }

    /// Where a file lies once links are followed; `None`: not here, or it is no regular file.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let target = fs::canonicalize(path).ok()?;
        let below = target.strip_prefix(self.root).ok()?;
        let is_shown = !below.iter().any(|part| is_hidden(Path::new(part)));
        // What is no regular file may block whoever opens it.
        let is_file = fs::metadata(&target).is_ok_and(|target| target.is_file());
        (is_shown && is_file).then_some(target)
    }

    fn bytes_of(&mut self, path: &Path) -> Result<Bytes, Unusable> {
        let file = OpenFile::open(path).map_err(unreadable(path))?;
        let left = MAX_BYTES - self.bytes;
        let mut bytes = Vec::new();
        let read = file.take(left + 1).read_to_end(&mut bytes);
        let read = read.map_err(unreadable(path))? as u64;
        if read > left {
            return Err(Unusable::TooLarge);
        }
        self.bytes += read;
        Ok(bytes.into())
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn content_type(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const MODULE: &str = "function SpiceMainConn() {}\nexport {\n  SpiceMainConn,\n};\n";

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = read(directory).unwrap().into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn scripts_and_style_sheets_are_read_with_their_kinds() {
        let directory = directory(&[
            ("main.js", MODULE),
            ("spice.css", "a"),
            ("thirdparty/jsbn.js", "b"),
            ("spice.html", "c"),
            ("README", "d"),
            (".hidden.js", "e"),
            (".git/x.js", "f"),
            ("a b.js", "g"),
            ("ä.js", "h"),
        ]);
        let expected = ["main.js", "spice.css", "thirdparty/jsbn.js"];
        assert_eq!(names(directory.path()), expected);
        let files = read(directory.path()).unwrap();
        assert_eq!(files["main.js"].bytes, MODULE);
        assert_eq!(files["main.js"].kind, "text/javascript; charset=utf-8");
        assert_eq!(files["spice.css"].kind, "text/css; charset=utf-8");
        assert_ne!(files["main.js"].tag, files["spice.css"].tag);
    }

    #[test]
    fn modules_may_lie_below_src() {
        let directory = directory(&[("src/main.js", MODULE), ("src/a.js", ""), ("b.js", "")]);
        assert_eq!(names(directory.path()), ["a.js", "main.js"]);
    }

    #[test]
    fn links_lead_nowhere_else() {
        let outside = directory(&[("secret.js", "s")]);
        let directory = directory(&[("main.js", MODULE), (".private/x.js", "p")]);
        let root = directory.path();
        let secret = outside.path().join("secret.js");
        symlink(&secret, root.join("file.js")).unwrap();
        symlink(outside.path(), root.join("folder")).unwrap();
        symlink("..", root.join("loop")).unwrap();
        symlink(".private/x.js", root.join("hidden.js")).unwrap();
        symlink("nowhere", root.join("broken.js")).unwrap();
        symlink("main.js", root.join("alias.js")).unwrap();
        assert_eq!(names(root), ["alias.js", "main.js"]);
        // The directory itself may be a link.
        symlink(root, outside.path().join("link")).unwrap();
        assert_eq!(names(&outside.path().join("link")), ["alias.js", "main.js"]);
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let directory = directory(&[("main.js", MODULE)]);
        let pipe = directory.path().join("pipe.js");
        let mode = rustix::fs::Mode::RUSR;
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
        assert_eq!(names(directory.path()), ["main.js"]);
    }

    #[test]
    fn another_directory_is_told() {
        let reason = |files: &[(&str, &str)]| {
            let directory = directory(files);
            read(directory.path()).unwrap_err()
        };
        assert_eq!(reason(&[]), Unusable::NotThere);
        assert_eq!(reason(&[("main.js", "var x;")]), Unusable::NotThere);
        let names: Vec<_> = (0..=MAX_ENTRIES).map(|at| format!("{at}.txt")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(reason(&many), Unusable::TooLarge);
        let deep = format!("{}x.js", "a/".repeat(MAX_DEPTH + 1));
        assert_eq!(reason(&[(&deep, "")]), Unusable::TooLarge);
        let missing = read(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(missing.contains("No such file or directory"), "{missing}");
    }

    #[test]
    fn large_files_are_not_read_whole() {
        let directory = directory(&[("main.js", MODULE)]);
        let large = fs::File::create(directory.path().join("large.js")).unwrap();
        large.set_len(1 << 40).unwrap();
        assert_eq!(read(directory.path()).unwrap_err(), Unusable::TooLarge);
    }
}
