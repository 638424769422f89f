//! How the file's content becomes an [`Inventory`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::beside::Beside;
use super::hardware::{self, HardwareAddress};
use super::inventory::{Desktop, Inventory, Terminal, User};
use super::members::{FILE, MAX_SPICE_PASSWORD, OPTIONS};
use super::node::Node;
use super::password::{Cost, StoredPassword, USUAL};
use super::problem::{Problems, shown};
use super::shape::{Form, Member};
use crate::pem_file::PemFile;
use crate::secret::Secret;

/// Why there is no inventory.
pub(crate) enum Wrong {
    /// The text is no JSON.
    Syntax(serde_json::Error),
    /// It says what makes no sense.
    Values(Problems),
}

/// What stands in a file, and the files that it names, in the order of
/// [`Inventory::files_beside`].
pub(super) type Read = (Inventory, Vec<PemFile>);

/// What stands in a file with this content.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn inventory(content: &[u8], folder: &Path) -> Result<Inventory, Wrong> {
    read(content, folder, false).map(|(inventory, _)| inventory)
}

/// Reads a file with this content; files that it names are relative to `folder`. Tickets of a pool
/// (`is_pool`) do not hold everything that a desktop can have.
pub(super) fn read(content: &[u8], folder: &Path, is_pool: bool) -> Result<Read, Wrong> {
    // Some editors put a byte order mark before UTF-8.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let node: Node = serde_json::from_slice(content).map_err(Wrong::Syntax)?;
    let mut reader = Reader {
        is_pool,
        ids: HashMap::new(),
        beside: Beside::new(folder),
        problems: Problems::default(),
    };
    FILE.check(&node, "", &mut reader.problems);
    let desktops = reader.desktops(&node);
    let users = reader.users(&node, &desktops);
    let terminals = reader.terminals(&node);
    if !reader.problems.is_empty() {
        return Err(Wrong::Values(reader.problems));
    }
    let (warnings, files) = reader.beside.done();
    let (paths, files) = files.into_iter().unzip();
    let inventory = Inventory {
        desktops: desktops.into_iter().flatten().map(Arc::new).collect(),
        decoy: Arc::new(StoredPassword::decoy(most_usual_cost(&users))),
        users,
        terminals,
        files_beside: paths,
        warnings,
    };
    Ok((inventory, files))
}

/// Those who ask with a name that nobody has wait as long as most of the others.
fn most_usual_cost(users: &HashMap<Box<str>, User>) -> Cost {
    let mut counts = HashMap::new();
    for user in users.values() {
        *counts.entry(user.password.cost()).or_insert(0_usize) += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map_or(USUAL, |(cost, _)| cost)
}

/// What the client may do, as it is answered.
fn options(desktop: &Node) -> Map<String, Value> {
    let Some(found) = desktop.member("options") else {
        return Map::new();
    };
    let option = |member: &Member| {
        let value = match found.member(member.name)? {
            Node::Switch(value) => Value::from(*value),
            Node::Number(Some(value)) => Value::from(*value),
            _ => return None,
        };
        Some((member.name.to_owned(), value))
    };
    OPTIONS.iter().filter_map(option).collect()
}

/// Reads what the shape cannot tell. What has the wrong shape is told already, and left out.
pub(super) struct Reader<'a> {
    /// Whether tickets are those of a pool.
    pub(super) is_pool: bool,
    /// Where each desktop stands.
    ids: HashMap<Box<str>, usize>,
    pub(super) beside: Beside<'a>,
    pub(super) problems: Problems,
}

impl Reader<'_> {
    /// All of them; `None`: something is wrong with it.
    fn desktops(&mut self, file: &Node) -> Vec<Option<Desktop>> {
        let nodes = file.list("desktops").iter().enumerate();
        nodes.map(|(at, node)| self.desktop(at, node)).collect()
    }

    fn desktop(&mut self, at: usize, node: &Node) -> Option<Desktop> {
        let id = node.text("id");
        if let Some(id) = id
            && let Some(first) = self.ids.get(id)
        {
            let what = format!("{} is the id of desktops[{first}] already", shown(id));
            self.problems.add(&format!("desktops[{at}].id"), what);
        } else if let Some(id) = id {
            self.ids.insert(id.into(), at);
        }
        let grant = self.grant(at, node);
        let password = self.spice_password(at, node);
        let id = id?;
        Some(Desktop {
            id: id.into(),
            name: node.text("name").unwrap_or(id).into(),
            grant: grant?,
            password: password?,
            options: options(node),
        })
    }

    fn spice_password(&mut self, at: usize, node: &Node) -> Option<Secret> {
        let (name, password) = match (node.secret("password"), node.text("password_file")) {
            (Some(password), _) => ("password", Ok(password.clone())),
            // What is wrong with it is told already.
            (None, Some(path)) if !Form::Line.fits(path) => return None,
            (None, Some(path)) => ("password_file", self.beside.password(path)),
            (None, None) => return Some(Secret::default()),
        };
        let checked = password.and_then(|password| {
            let text = password.expose();
            if text.len() > MAX_SPICE_PASSWORD {
                let most = format!("Spice servers take at most {MAX_SPICE_PASSWORD} bytes");
                return Err(format!("the password is too long: {most}"));
            }
            if text.chars().any(char::is_control) {
                return Err("the password has a control character, or several lines".to_owned());
            }
            Ok(password)
        });
        checked
            .map_err(|what| self.problems.add(&format!("desktops[{at}].{name}"), what))
            .ok()
    }

    fn users(&mut self, file: &Node, desktops: &[Option<Desktop>]) -> HashMap<Box<str>, User> {
        let mut users = HashMap::new();
        let mut firsts = HashMap::new();
        for (at, node) in file.list("users").iter().enumerate() {
            let place = |member: &str| format!("users[{at}].{member}");
            let name = node.text("name");
            if let Some(name) = name
                && let Some(first) = firsts.insert(name, at)
            {
                let what = format!("{} is the name of users[{first}] already", shown(name));
                self.problems.add(&place("name"), what);
            }
            let hash = node.text("password").filter(|hash| Form::Hash.fits(hash));
            let password = hash.and_then(|hash| {
                let parsed = StoredPassword::parse(hash);
                let told = parsed.map_err(|error| {
                    self.problems.add(&place("password"), error.to_string());
                });
                told.ok()
            });
            let chosen = self.desktops_of(&place("desktops"), node, desktops);
            if let (Some(name), Some(password)) = (name, password) {
                let user = User {
                    password: Arc::new(password),
                    desktops: chosen,
                };
                users.insert(name.into(), user);
            }
        }
        users
    }

    fn desktops_of(
        &mut self,
        place: &str,
        user: &Node,
        desktops: &[Option<Desktop>],
    ) -> Vec<usize> {
        let mut chosen = Vec::new();
        let mut taken = HashSet::new();
        // Clients show names only, and some keep one desktop of each.
        let mut names = HashSet::new();
        for (at, node) in user.list("desktops").iter().enumerate() {
            let Node::Text(id) = node else {
                continue;
            };
            let id = id.expose();
            let place = format!("{place}[{at}]");
            let Some(found) = self.desktop_called(&place, id) else {
                continue;
            };
            if !taken.insert(found) {
                let what = format!("{} stands in this list already", shown(id));
                self.problems.add(&place, what);
                continue;
            }
            chosen.push(found);
            if let Some(Some(desktop)) = desktops.get(found)
                && !names.insert(&*desktop.name)
            {
                let what = format!(
                    "the user has another desktop with the name {}, and could not tell them apart",
                    shown(&desktop.name)
                );
                self.problems.add(&place, what);
            }
        }
        chosen
    }

    fn terminals(&mut self, file: &Node) -> HashMap<HardwareAddress, Terminal> {
        let mut terminals = HashMap::new();
        let mut firsts = HashMap::new();
        for (at, node) in file.list("terminals").iter().enumerate() {
            let place = |member: &str| format!("terminals[{at}].{member}");
            let desktop = node.text("desktop");
            let desktop = desktop.and_then(|id| self.desktop_called(&place("desktop"), id));
            let written = node.text("hwaddress");
            let Some(written) = written.filter(|text| Form::Line.fits(text)) else {
                continue;
            };
            let Some(address) = HardwareAddress::parse(written) else {
                let most = hardware::LONGEST;
                let what = format!("expected from 1 to {most} letters and digits");
                self.problems.add(&place("hwaddress"), what);
                continue;
            };
            if let Some(first) = firsts.insert(address.clone(), at) {
                let what = format!(
                    "{} is the address of terminals[{first}] already",
                    shown(written)
                );
                self.problems.add(&place("hwaddress"), what);
            }
            if let Some(desktop) = desktop {
                let name = node.text("name").map(Into::into);
                terminals.insert(address, Terminal { name, desktop });
            }
        }
        terminals
    }

    /// Where the desktop of this id stands.
    fn desktop_called(&mut self, place: &str, id: &str) -> Option<usize> {
        let found = self.ids.get(id).copied();
        if found.is_none() {
            let what = format!("no such desktop {}", shown(id));
            self.problems.add(place, what);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use serde_json::json;

    use super::super::password::tests::quick_hash;
    use super::*;

    fn read(file: &Value) -> Result<Inventory, Wrong> {
        inventory(file.to_string().as_bytes(), Path::new("/nonexistent"))
    }

    /// Everything that is wrong.
    fn problems(file: &Value) -> Vec<String> {
        match read(file) {
            Err(Wrong::Values(problems)) => {
                let lines = problems.to_string();
                let lines = lines.lines().map(|line| line.replace("Desktops: ", ""));
                lines.collect()
            }
            Err(Wrong::Syntax(error)) => vec![error.to_string()],
            Ok(_) => vec![],
        }
    }

    #[test]
    fn who_has_what_is_found() {
        let file = json!({
            "desktops": [
                {"id": "win10", "name": "Windows 10", "address": "10.0.0.21:5900", "password": "s3"},
                {"id": "linux", "address": "[2001:db8::1]:5901",
                 "options": {"inactivity_timeout": 600, "enable_printing": false}},
            ],
            "users": [
                {"name": "ana", "password": quick_hash("a"), "desktops": ["linux", "win10"]},
                {"name": "Ána", "password": quick_hash("b"), "desktops": []},
            ],
            "terminals": [
                {"hwaddress": "52:54:00:AB:cd:ef", "desktop": "linux", "name": "Reception"},
                {"hwaddress": "0-0", "desktop": "win10"},
            ],
        });
        let read = read(&file).ok().unwrap();
        assert_eq!(read.summary(), "2 desktops, 2 users, 2 terminals");
        let ana = read.user("ana").unwrap();
        assert!(ana.password.is_of("a").unwrap());
        let theirs: Vec<_> = read.desktops_of(ana).collect();
        assert_eq!((&*theirs[0].id, &*theirs[0].name), ("linux", "linux"));
        assert_eq!(theirs[0].grant.target.to_string(), "[2001:db8::1]:5901");
        assert_eq!(theirs[0].password.expose(), "");
        assert_eq!(
            Value::Object(theirs[0].options.clone()),
            json!({"enable_printing": false, "inactivity_timeout": 600})
        );
        assert_eq!(
            (&*theirs[1].name, theirs[1].password.expose()),
            ("Windows 10", "s3")
        );
        assert!(read.user("Ána").unwrap().desktops.is_empty());
        assert!(read.user("ANA").is_none());
        let (terminal, desktop) = read.terminal("52-54-00-ab-cd-EF").unwrap();
        assert_eq!(
            (terminal.name.as_deref(), &*desktop.id),
            (Some("Reception"), "linux")
        );
        assert!(read.terminal("00").is_some());
        assert!(read.terminal("").is_none());
        // Those whose names nobody has wait as long as the others.
        assert_eq!(read.decoy.cost(), ana.password.cost());
        assert!(!format!("{read:?}").contains("s3"));
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let hash = quick_hash("a");
        let file = json!({
            "desktops": [
                {"id": "a b", "address": "10.0.0.21", "password": "s3cret", "password_file": "p"},
                {"id": "x", "address": "10.0.0.21:5900", "ssl": true,
                 "options": {"enable_printing": "no", "inactivity_timeout": -1, "enable": true}},
                {"id": "x", "name": "", "address": 5900},
                {"id": "y", "address": "10.0.0.21:0", "password": "s".repeat(61)},
                {"id": "z", "name": "x", "address": "::1:5900", "password": "s3\ncret"},
                "w",
                {},
            ],
            "users": [
                {"name": "ana", "password": "s3cret", "desktops": ["x", "v", "x", "z", 7]},
                {"name": "ana", "password": hash, "desktops": "x"},
                {"password": "$argon2id$v=19$m=1000000,t=1,p=1$c29tZXNhbHQ$E5Kgw9dbQ8tXCqgTmwAKCYXuHAOM97SJ"},
            ],
            "terminals": [
                {"hwaddress": "52:54:00:00:00:01", "desktop": "v"},
                {"hwaddress": "525400000001", "desktop": "x"},
                {"hwaddress": "::", "desktop": "x"},
            ],
            "groups": [],
        });
        let told = problems(&file);
        let expected = [
            r#"there is no member "groups"; known are $schema, desktops, users, terminals"#,
            r#"desktops[0].id: expected a string of letters, digits, ".", "_" and "-""#,
            "desktops[0]: only one of password and password_file may be there",
            r#"desktops[1]: there is no member "ssl"; known are id, name, address, password, password_file, tls_port, channels, tls, options"#,
            "desktops[1].options.enable_printing: expected true or false, found a string",
            "desktops[1].options.inactivity_timeout: expected a whole number from 0 to 604800",
            r#"desktops[1].options: there is no member "enable"; known are enable_audio_playback, enable_audio_record, enable_copy_paste_g2h, enable_copy_paste_h2g, enable_power_actions, enable_printing, enable_usb_redir, enable_video_streaming, inactivity_timeout"#,
            "desktops[2].name: expected a string that is not empty and has no control characters",
            "desktops[2].address: expected a string, found a number",
            "desktops[3].password: expected at most 60 characters",
            "desktops[5]: expected an object, found a string",
            "desktops[6]: the member id is missing",
            "desktops[6]: the member address is missing",
            "users[0].password: expected an argon2id hash, as `flexvdi-gateway password` prints it",
            "users[0].desktops[4]: expected a string, found a number",
            "users[1].desktops: expected an array, found a string",
            "users[2]: the member name is missing",
            "users[2]: the member desktops is missing",
            r#"desktops[0].address: expected HOST:PORT with a port from 1 to 65535, such as "10.0.0.21:5900"; found "10.0.0.21""#,
            r#"desktops[2].id: "x" is the id of desktops[1] already"#,
            r#"desktops[3].address: expected HOST:PORT with a port from 1 to 65535, such as "10.0.0.21:5900"; found "10.0.0.21:0""#,
            "desktops[3].password: the password is too long: Spice servers take at most 60 bytes",
            r#"desktops[4].address: expected brackets around an IPv6 address, such as "[2001:db8::21]:5900"; found "::1:5900""#,
            "desktops[4].password: the password has a control character, or several lines",
            r#"users[0].desktops[1]: no such desktop "v""#,
            r#"users[0].desktops[2]: "x" stands in this list already"#,
            r#"users[1].name: "ana" is the name of users[0] already"#,
            "users[2].password: the hash asks for too much: at most m=65536 (KiB), t=10 and p=4 are accepted",
            r#"terminals[0].desktop: no such desktop "v""#,
            r#"terminals[1].hwaddress: "525400000001" is the address of terminals[0] already"#,
            "terminals[2].hwaddress: expected from 1 to 64 letters and digits",
        ];
        for line in expected {
            assert!(
                told.iter().any(|told| told == line),
                "{line} in\n{}",
                told.join("\n")
            );
        }
        assert_eq!(told.len(), expected.len(), "{}", told.join("\n"));
        assert!(!told.join("\n").contains("s3"), "{}", told.join("\n"));
    }

    #[test]
    fn desktops_that_people_cannot_tell_apart_are_not_offered_together() {
        let desktop = |id: &str| json!({"id": id, "name": "Windows", "address": "h:5900"});
        let user = |name: &str, ids: &[&str]| json!({"name": name, "password": quick_hash("a"), "desktops": ids});
        let file = json!({
            "desktops": [desktop("a"), desktop("b")],
            "users": [user("ana", &["a"]), user("eva", &["b"]), user("ida", &["a", "b"])],
        });
        assert_eq!(
            problems(&file),
            [
                "users[2].desktops[1]: the user has another desktop with the name \"Windows\", and could not tell them apart"
            ]
        );
    }

    #[test]
    fn members_that_come_twice_are_told() {
        let text = r#"{"desktops": [{"id": "a", "id": "b", "address": "h:5900"}], "desktops": []}"#;
        let Err(Wrong::Values(problems)) = inventory(text.as_bytes(), Path::new("")) else {
            unreachable!("it is wrong")
        };
        assert_eq!(
            problems.to_string(),
            "Desktops: desktops[0].id: it is given twice\nDesktops: desktops: it is given twice"
        );
    }

    #[test]
    fn passwords_are_read_from_files_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        };
        let good = write("good", "s3 cret\n", 0o640);
        let open = write("open", "s3 cret\r\n", 0o644);
        write("empty", "\n", 0o600);
        write("two", "s3\ncret\n", 0o600);
        let file = |names: &[&str]| {
            let desktop = |(at, name): (usize, &&str)| json!({"id": at.to_string(), "address": "h:5900", "password_file": name});
            let desktops: Vec<_> = names.iter().enumerate().map(desktop).collect();
            json!({ "desktops": desktops }).to_string()
        };
        let names = ["good", "good", open.to_str().unwrap()];
        let read = inventory(file(&names).as_bytes(), folder.path())
            .ok()
            .unwrap();
        assert!(
            read.desktops
                .iter()
                .all(|desktop| desktop.password.expose() == "s3 cret")
        );
        assert_eq!(read.files_beside, [good, open.clone()]);
        let [warning] = &read.warnings[..] else {
            unreachable!("one file is open")
        };
        assert!(
            warning.contains(&format!("{} has mode 644", open.display())),
            "{warning}"
        );

        let names = ["none", "empty", "two", "/dev/zero", "a\nb"];
        let wrong = inventory(file(&names).as_bytes(), folder.path());
        let Err(Wrong::Values(problems)) = wrong else {
            unreachable!("all are wrong")
        };
        let told = problems.to_string();
        let mut lines = told.lines();
        let of_shape = lines.next().unwrap();
        assert!(
            of_shape.contains("desktops[4].password_file: expected a string that"),
            "{of_shape}"
        );
        for (at, what) in [
            "none: No such file or directory (os error 2)",
            "empty: there is no password in it",
            "the password has a control character, or several lines",
            "/dev/zero: it is no regular file",
        ]
        .iter()
        .enumerate()
        {
            let line = lines.next().unwrap();
            assert!(
                line.contains(&format!("desktops[{at}].password_file: ")),
                "{line}"
            );
            assert!(line.ends_with(what), "{line}");
        }
    }

    #[test]
    fn ten_thousand_of_each_are_no_trouble() {
        let hash = quick_hash("a");
        let desktops: Vec<_> = (0..10_000)
            .map(|at| json!({"id": format!("d{at}"), "address": "10.0.0.21:5900", "password": "s"}))
            .collect();
        let users: Vec<_> = (0..10_000)
            .map(|at| json!({"name": format!("u{at}"), "password": hash, "desktops": [format!("d{at}")]}))
            .collect();
        let terminals: Vec<_> = (0..10_000)
            .map(|at| json!({"hwaddress": format!("{at:012x}"), "desktop": "d0"}))
            .collect();
        let file = json!({"desktops": desktops, "users": users, "terminals": terminals});
        let text = file.to_string();
        let begun = Instant::now();
        let read = inventory(text.as_bytes(), Path::new("")).ok().unwrap();
        println!("{} bytes in {:?}", text.len(), begun.elapsed());
        assert_eq!(read.users.len(), 10_000);
        assert_eq!(read.desktops_of(read.user("u9999").unwrap()).count(), 1);
        assert!(read.terminal("00:00:00:00:27:0F").is_some());
    }

    #[test]
    fn any_text_is_read_or_refused() {
        for text in [
            "",
            "[]",
            "1",
            "{}",
            "\u{feff}{\"desktops\": []}",
            "{\"desktops\": null}",
        ] {
            let read = inventory(text.as_bytes(), Path::new(""));
            assert_eq!(read.is_ok(), text.starts_with('\u{feff}'), "{text}");
        }
        assert!(matches!(
            inventory(b"\xff", Path::new("")),
            Err(Wrong::Syntax(_))
        ));
        let deep = format!("{{\"desktops\": {}", "[".repeat(100_000));
        assert!(matches!(
            inventory(deep.as_bytes(), Path::new("")),
            Err(Wrong::Syntax(_))
        ));
    }
}
