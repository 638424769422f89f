//! The codes that the process ends with.

use anyhow::{Context, Result};

use super::source::sources;
use super::{files, read, repository};

/// The numbers in the first column of the table of exit codes.
fn documented(text: &str) -> Result<Vec<u8>> {
    let (_, table) = text
        .split_once("| Exit code | Situation |")
        .context("the table of exit codes")?;
    let rows = table.trim_start().lines().skip(1);
    let rows = rows.take_while(|line| line.starts_with("| "));
    let codes = rows.map(|row| {
        let code = row.trim_start_matches("| ").split(' ').next();
        let code = code.and_then(|code| code.parse().ok());
        code.with_context(|| row.to_owned())
    });
    codes.collect()
}

/// The value of `const EXIT_...: u8 = 128 + 13;`.
fn constant(line: &str) -> Option<u8> {
    let (name, value) = line.split_once(": u8 = ")?;
    if !name.contains("const EXIT_") {
        return None;
    }
    let terms = value.trim_end_matches(';').split(" + ");
    terms.map(|term| term.parse::<u8>().ok()).sum()
}

#[test]
fn every_exit_code_is_documented() -> Result<()> {
    let documented = documented(&read("docs/answers.md")?)?;
    // Those that have no constant: good, ExitCode::FAILURE, and clap's for a wrong command line.
    let mut real = vec![0, 1, 2];
    for source in files(&repository().join("gateway/src"), "rs")? {
        let text = std::fs::read_to_string(source)?;
        real.extend(text.lines().filter_map(constant));
    }
    real.sort_unstable();
    assert!(real.len() > 4, "{real:?}");
    assert_eq!(documented, real);

    let man_page = read("gateway/src/documents.rs")?;
    for code in real {
        let term = format!("\"{code}\",");
        assert!(man_page.contains(&term), "{code} in the man page");
    }
    Ok(())
}

#[test]
fn nothing_ends_the_process_with_a_number_of_its_own() -> Result<()> {
    for (path, text) in sources()? {
        for call in ["ExitCode::from(", "process::exit("] {
            for after in text.split(call).skip(1) {
                assert!(after.starts_with("EXIT_"), "{path}: {call}");
            }
        }
    }
    Ok(())
}
