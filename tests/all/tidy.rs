//! The house rules that a compiler does not know: who may use whom, which rooms are pure, how long a file may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of the longest file. A file holds one idea; this is where an idea has become two.
const LONGEST: usize = 620;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files under a directory with an ending, as (path from the root, text).
fn files(dir: &str, ending: &str) -> Vec<(String, String)> {
    fn visit(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, ending, found);
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join(dir), ending, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{ending} in {dir}");
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The level of each room, as `lib.rs` lists them: a paragraph a level.
fn levels(lib: &str) -> BTreeMap<String, usize> {
    let mut levels = BTreeMap::new();
    for (level, paragraph) in lib.split("\n\n").filter(|p| p.contains("pub mod ")).enumerate() {
        for line in paragraph.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
            levels.insert(line.trim_end_matches(';').to_owned(), level);
        }
    }
    levels
}

fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap();
    inside.split(['/', '.']).next().unwrap()
}

/// The rooms that a text names: the word behind each `crate::`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or(""))
}

/// Who is used by whom against the rules.
fn trespasses(files: &[(String, String)], levels: &BTreeMap<String, usize>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        let own = room(path);
        let Some(level) = levels.get(own) else { continue };
        for used in named(text).filter(|used| *used != own) {
            match levels.get(used) {
                Some(other) if other < level => {}
                Some(_) => found.push(format!("{path}: {own} uses {used}, which is not below it")),
                None => found.push(format!("{path}: crate::{used} is no room of lib.rs")),
            }
        }
        // Out of a room through its roof: more `super`s than the file lies deep.
        let depth = path.matches('/').count();
        let out = "super::".repeat(depth);
        let inside_tests = text.split("#[cfg(test)]").next().unwrap_or("");
        if inside_tests.contains(&out) && !path.ends_with("mod.rs") {
            found.push(format!("{path}: leaves its room by {out}"));
        }
    }
    found
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let files = files("src", "rs");
    let lib = &files.iter().find(|(path, _)| path == "src/lib.rs").unwrap().1;
    let levels = levels(lib);
    assert!(levels.len() > 15, "{levels:?}");
    for (path, _) in &files {
        let own = room(path);
        let known = levels.contains_key(own) || own == "lib" || own == "main";
        assert!(known, "{path} stands in no room of lib.rs");
    }
    let found = trespasses(&files, &levels);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_trespass_is_found() {
    let levels = levels("pub mod model;\n\npub mod pace;\npub mod wire;\n\npub mod api;\n");
    let file = |path: &str, text: &str| vec![(path.to_owned(), text.to_owned())];
    assert!(trespasses(&file("src/api/x.rs", "use crate::wire::pdu;"), &levels).is_empty());
    assert_eq!(trespasses(&file("src/wire/x.rs", "use crate::api::State;"), &levels).len(), 1);
    assert_eq!(trespasses(&file("src/wire/x.rs", "use crate::pace::Paces;"), &levels).len(), 1);
    assert_eq!(trespasses(&file("src/wire/x.rs", "super::super::api::x()"), &levels).len(), 1);
}

#[test]
fn pure_rooms_are_pure() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let levels = levels(&lib);
    let mut found = Vec::new();
    for (path, text) in files("src", "rs") {
        let is_pure = levels.get(room(&path)).is_some_and(|level| *level <= 1);
        // The clock itself is the one place that asks the machine for the time.
        if !is_pure || path == "src/model/time.rs" {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or("");
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.split("//").next().unwrap_or("");
            for word in [
                "tokio::",
                "std::fs",
                "std::thread",
                "SystemTime",
                "Instant::now",
                ".await",
                "async fn",
                "HashMap",
                "HashSet",
                "TcpStream",
                "UdpSocket",
                "std::env",
            ] {
                if line.contains(word) {
                    found.push(format!("{path}:{number}: {word} in a pure room"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_say_what_they_are_for_and_end_in_time() {
    for (path, text) in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        assert!(text.starts_with("//! "), "{path} does not open with what it is for");
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{path} has {lines} lines: which two ideas are in it?");
    }
}

#[test]
fn nothing_is_left_undone_or_put_to_sleep() {
    let me = "tests/all/tidy.rs";
    let mut found = Vec::new();
    for (path, text) in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        if path == me {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            let undone = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore]", "FIXME", "XXX"];
            let asleep = ["thread::sleep", "time::sleep("];
            let words = if path.starts_with("tests/") { &asleep[..] } else { &[] };
            // A misbehaving peer may sleep, and who asks another process again; a test that could await an event may not.
            let excused = ["// the peer's own delay", "// between two questions to a process"];
            if excused.iter().any(|excuse| line.ends_with(excuse)) {
                continue;
            }
            for word in undone.iter().chain(words).filter(|word| line.contains(**word)) {
                found.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let sections = ["[dependencies]", "[dev-dependencies]"];
    for section in sections {
        let rest = manifest.split(section).nth(1).unwrap();
        let lines = rest.lines().skip(1).take_while(|line| !line.starts_with('['));
        for line in lines.filter(|line| line.contains('=') && !line.starts_with('#')) {
            let why = line.rsplit_once('#').map_or("", |(_, why)| why.trim());
            assert!(why.len() > 5, "{section} {line}");
        }
    }
}
