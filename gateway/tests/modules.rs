//! The modules of each crate depend on each other in one direction.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, by the folders of their sources.
const CRATES: [&str; 6] = [
    "bench/src",
    "gateway/src",
    "gateway-common/src",
    "gateway-datapath/src",
    "tests/src",
    "xtask/src",
];

/// Which module uses which others, and the file that does.
type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

#[test]
fn no_module_needs_itself() {
    for sources in CRATES {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(sources);
        let arrows = arrows(&root);
        assert!(
            sources == "gateway-common/src" || arrows.len() > 5,
            "{sources}: {arrows:?}"
        );
        if let Some(cycle) = cycle(&arrows) {
            let steps = cycle.windows(2).map(|step| {
                let file = arrows[&step[0]][&step[1]].display();
                format!("  {} -> {} ({file})\n", step[0], step[1])
            });
            panic!(
                "{sources}: modules need each other:\n{}",
                steps.collect::<String>()
            );
        }
    }
}

#[test]
fn a_cycle_is_found_and_named() {
    let uses = |names: &[&str]| {
        let arrow = |name: &&str| ((*name).to_owned(), PathBuf::new());
        names.iter().map(arrow).collect::<BTreeMap<_, _>>()
    };
    let mut arrows = Arrows::from([
        ("a".to_owned(), uses(&["b", "c"])),
        ("b".to_owned(), uses(&["c", "d"])),
        ("c".to_owned(), uses(&["d"])),
    ]);
    assert_eq!(cycle(&arrows), None);
    arrows.insert("d".to_owned(), uses(&["b"]));
    assert_eq!(cycle(&arrows).unwrap(), ["b", "c", "d", "b"]);
}

#[test]
fn what_a_file_uses_of_its_crate_is_read() {
    let text = "
use crate::a::{self, A};
use crate::{b::B, c, Root}; // crate::comment
let x = crate::d::x();
#[cfg(test)]
mod tests { use crate::e; }
";
    let names: Vec<_> = names_after("crate::", &product_code(text)).collect();
    assert_eq!(names, ["a", "b", "c", "Root", "d"]);
}

/// The arrows between the modules at a crate's root.
fn arrows(root: &Path) -> Arrows {
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let module = |file: &Path| {
        let first = file.strip_prefix(root).unwrap().iter().next().unwrap();
        let first = first.to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    };
    let modules: BTreeSet<String> = files.iter().map(|file| module(file)).collect();
    let reexported = reexported(&product_code(
        &fs::read_to_string(root.join("lib.rs")).unwrap_or_default(),
    ));
    let mut arrows = Arrows::new();
    for file in &files {
        let from = module(file);
        // The root may use all of them.
        if ["lib", "main", "bin"].contains(&&*from) {
            continue;
        }
        let code = product_code(&fs::read_to_string(file).unwrap());
        let parts = file.strip_prefix(root).unwrap().components().count();
        let is_at_root = parts == 1 || (parts == 2 && file.ends_with("mod.rs"));
        let of_root = is_at_root.then(|| names_after("super::", &code));
        let names = names_after("crate::", &code).chain(of_root.into_iter().flatten());
        for name in names {
            let to = reexported.get(&name).unwrap_or(&name);
            if *to != from && modules.contains(to) {
                let shown = file.strip_prefix(root).unwrap().to_owned();
                let of_module = arrows.entry(from.clone()).or_default();
                of_module.entry(to.clone()).or_insert(shown);
            }
        }
    }
    arrows
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A file without comments and without its tests, which may use what they like.
fn product_code(text: &str) -> String {
    let text = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let code = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The first names of the paths that begin with `prefix`, groups in braces resolved.
fn names_after<'a>(prefix: &'a str, code: &'a str) -> impl Iterator<Item = String> + 'a {
    code.match_indices(prefix).flat_map(|(at, _)| {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => group_members(group),
            None => Vec::from([identifier(rest)]),
        }
    })
}

/// The first name of each member of a group, whose opening brace is read already.
fn group_members(group: &str) -> Vec<String> {
    let (mut depth, mut members, mut is_first) = (0, Vec::new(), true);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_first = true,
            _ if is_first && (char.is_alphanumeric() || char == '_') => {
                members.push(identifier(&group[at..]));
                is_first = false;
            }
            _ => {}
        }
    }
    members
}

fn identifier(text: &str) -> String {
    let is_part = |char: &char| char.is_alphanumeric() || *char == '_';
    text.chars().take_while(is_part).collect()
}

/// The modules from which the root of a crate takes what it shows as its own.
fn reexported(root: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for statement in root.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let module = identifier(path);
        let Some((_, last)) = path.rsplit_once("::") else {
            continue;
        };
        let names = match path.split_once('{') {
            Some((_, group)) => group_members(group),
            None => Vec::from([identifier(last)]),
        };
        found.extend(names.into_iter().map(|name| (name, module.clone())));
    }
    found
}

/// Modules that need each other, the first one named again at the end.
fn cycle(arrows: &Arrows) -> Option<Vec<String>> {
    fn search(
        module: &str,
        arrows: &Arrows,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|before| before == module) {
            let mut cycle = way[at..].to_vec();
            cycle.push(module.to_owned());
            return Some(cycle);
        }
        if done.contains(module) {
            return None;
        }
        way.push(module.to_owned());
        let next = arrows.get(module).into_iter().flat_map(BTreeMap::keys);
        let found = next
            .into_iter()
            .find_map(|next| search(next, arrows, way, done));
        way.pop();
        done.insert(module.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    let mut modules = arrows.keys();
    modules.find_map(|module| search(module, arrows, &mut Vec::new(), &mut done))
}
