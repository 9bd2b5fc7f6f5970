//! The version of the programs.

use std::sync::OnceLock;

/// Returns the version for `--version`: with the commit, if `TRADEWIND_COMMIT` named one when this was compiled.
///
/// A variable and no build script that asks git: sources come without git too, and each commit would compile all
/// programs again.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| with_commit(option_env!("TRADEWIND_COMMIT")))
}

fn with_commit(commit: Option<&str>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match commit.map(str::trim) {
        Some(commit) if !commit.is_empty() => format!("{version} ({commit})"),
        _ => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_knows_its_commit_says_it() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(with_commit(Some("0123456789ab")), format!("{version} (0123456789ab)"));
        for unknown in [None, Some(""), Some(" \n")] {
            assert_eq!(with_commit(unknown), version);
        }
    }
}
