//! Units of systemd as files: what a service is told (systemd.unit(5), systemd.syntax(7)).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The unit that the packages install.
pub(super) const SHIPPED: &str = include_str!("../../../packaging/systemd/flexvdi-gateway.service");
/// Its name.
pub(super) const USUAL_NAME: &str = "flexvdi-gateway.service";

/// Where systemd looks, the first goes before the others.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What stands in a unit and its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(Vec<(String, String)>);

/// A unit that was found.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Files that add to it, in the order in which they do.
    pub(super) drop_ins: Vec<PathBuf>,
    pub(super) settings: Settings,
    /// Files that could not be read, which may say more.
    pub(super) unread: Vec<String>,
}

impl Settings {
    /// Of a unit's text.
    pub(super) fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        settings.add(text);
        settings
    }

    /// Adds what a drop-in says.
    fn add(&mut self, text: &str) {
        let mut whole = String::new();
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(begun) = line.strip_suffix('\\') {
                whole.push_str(begun);
                whole.push(' ');
                continue;
            }
            whole.push_str(line);
            if let Some((key, value)) = whole.split_once('=')
                && !whole.starts_with('[')
            {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                self.0.push((key, value));
            }
            whole.clear();
        }
    }

    /// The last value of a setting that has one; `None`: it is not given, or empty.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let last = self.0.iter().rfind(|(name, _)| name == key);
        last.map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The words of all values of a setting; an empty value takes those before it away.
    pub(super) fn words(&self, key: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for (name, value) in &self.0 {
            if name == key {
                if value.is_empty() {
                    words.clear();
                }
                words.extend(value.split_whitespace());
            }
        }
        words
    }

    /// The names of all settings, some of them several times.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, key: &str) -> bool {
        let value = self.value(key).map(str::to_ascii_lowercase);
        matches!(value.as_deref(), Some("yes" | "true" | "on" | "1"))
    }
}

impl Unit {
    /// The installed one; `None`: there is none.
    pub(super) fn installed(name: &str) -> Option<Self> {
        Self::installed_in(&FOLDERS.map(PathBuf::from), name)
    }

    fn installed_in(folders: &[PathBuf], name: &str) -> Option<Self> {
        let names = [Some(name.to_owned()), template(name)];
        let files = names.iter().flatten();
        let mut files = files.flat_map(|file| folders.iter().map(move |folder| folder.join(file)));
        let path = files.find(|path| path.exists())?;
        // The same names may be in several folders: those of the first one count.
        let mut drop_ins = BTreeMap::new();
        for folder in folders.iter().rev() {
            for beside in drop_in_folders(name).iter().map(|name| folder.join(name)) {
                drop_ins.extend(configurations(&beside));
            }
        }
        Some(Self::read(name, &path, drop_ins.into_values().collect()))
    }

    /// The one in this file, with the drop-ins beside it.
    pub(super) fn file(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".d");
        let drop_ins: BTreeMap<_, _> = configurations(Path::new(&beside)).collect();
        Self::read(&name, path, drop_ins.into_values().collect())
    }

    fn read(name: &str, path: &Path, drop_ins: Vec<PathBuf>) -> Self {
        let mut settings = Settings::default();
        let mut unread = Vec::new();
        for file in [path]
            .into_iter()
            .chain(drop_ins.iter().map(PathBuf::as_path))
        {
            match fs::read_to_string(file) {
                Ok(text) => settings.add(&text),
                Err(error) => unread.push(format!("{}: {error}", file.display())),
            }
        }
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            drop_ins,
            settings,
            unread,
        }
    }

    /// All its files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let drop_ins = self.drop_ins.iter().map(PathBuf::as_path);
        [self.path.as_path()].into_iter().chain(drop_ins)
    }
}

/// With `.service` at its end.
pub(super) fn full_name(name: &str) -> String {
    if name.ends_with(".service") {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// The template of an instance, as `a@.service` is that of `a@b.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, instance) = name.split_once('@')?;
    let (_, kind) = instance.rsplit_once('.')?;
    Some(format!("{prefix}@.{kind}"))
}

/// Names of the folders with drop-ins of a unit, the most general first.
fn drop_in_folders(name: &str) -> Vec<String> {
    let stem = name.strip_suffix(".service").unwrap_or(name);
    let dashes = stem.match_indices('-').map(|(at, _)| &stem[..=at]);
    let mut folders = vec!["service.d".to_owned()];
    folders.extend(dashes.map(|prefix| format!("{prefix}.service.d")));
    folders.extend(template(name).map(|name| format!("{name}.d")));
    folders.push(format!("{name}.d"));
    folders
}

/// The drop-ins in a folder, by their names.
fn configurations(folder: &Path) -> impl Iterator<Item = (std::ffi::OsString, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let paths = paths.filter(|path| path.extension().is_some_and(|ending| ending == "conf"));
    paths.filter_map(|path| Some((path.file_name()?.to_owned(), path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_systemd_reads_them() {
        let settings = Settings::parse(
            "[Service]\n# No=comment\nExecStart=/usr/sbin/x --a=b \\\n  --c\nUser = u\nUser=\n\
             AmbientCapabilities=CAP_A CAP_B\nAmbientCapabilities=CAP_C\nNoNewPrivileges=yes\n",
        );
        assert_eq!(settings.words("ExecStart"), ["/usr/sbin/x", "--a=b", "--c"]);
        assert_eq!(settings.value("User"), None);
        assert_eq!(
            settings.words("AmbientCapabilities"),
            ["CAP_A", "CAP_B", "CAP_C"]
        );
        assert!(settings.is_on("NoNewPrivileges") && !settings.is_on("PrivateTmp"));
        assert_eq!(settings.value("No"), None);
    }

    #[test]
    fn an_empty_value_takes_back_what_came_before() {
        let mut settings = Settings::parse("AmbientCapabilities=CAP_A");
        settings.add("AmbientCapabilities=\nAmbientCapabilities=CAP_B");
        assert_eq!(settings.words("AmbientCapabilities"), ["CAP_B"]);
    }

    #[test]
    fn the_first_folder_goes_before_others_and_drop_ins_are_in_order() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().join("etc"), root.path().join("lib")];
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let find = |name| Unit::installed_in(&folders, name);
        assert!(find("a-b.service").is_none());
        write("lib/a-b.service", "User=lib");
        assert_eq!(
            find("a-b.service").unwrap().settings.value("User"),
            Some("lib")
        );
        write("etc/a-b.service", "User=etc\nType=notify");
        write("lib/a-b.service.d/2.conf", "User=second");
        write("etc/a-b.service.d/1.conf", "User=first");
        write("lib/a-b.service.d/1.conf", "User=hidden\nType=hidden");
        write("etc/a-.service.d/0.conf", "Restart=no");
        write("etc/a-b.service.d/ignored", "User=ignored");
        let unit = find("a-b.service").unwrap();
        assert_eq!(unit.settings.value("User"), Some("second"));
        assert_eq!(unit.settings.value("Type"), Some("notify"));
        assert_eq!(unit.settings.value("Restart"), Some("no"));
        assert_eq!(unit.drop_ins.len(), 3);
        write("lib/c@.service", "User=template");
        let unit = find("c@one.service").unwrap();
        assert_eq!(unit.settings.value("User"), Some("template"));
        assert_eq!(unit.name, "c@one.service");
    }

    #[test]
    fn a_file_is_read_with_what_is_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x.service");
        fs::write(&path, "User=a").unwrap();
        fs::create_dir(root.path().join("x.service.d")).unwrap();
        fs::write(root.path().join("x.service.d/1.conf"), "User=b").unwrap();
        assert_eq!(Unit::file(&path).settings.value("User"), Some("b"));
        let missing = Unit::file(&root.path().join("y.service"));
        assert_eq!(missing.unread.len(), 1);
    }

    #[test]
    fn names_are_completed() {
        assert_eq!(full_name("a"), "a.service");
        assert_eq!(full_name("a@b.service"), "a@b.service");
        assert_eq!(template("a@b.service").unwrap(), "a@.service");
        assert!(
            Settings::parse(SHIPPED)
                .value("RestartKillSignal")
                .is_some()
        );
    }
}
