//! Is there such a command? Asked before any task is taken, so that a typing mistake is one clear
//! line instead of a million failed tasks.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::code;
use super::template::Template;

/// Directories in which execvp(3) looks when there is no PATH.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// Why a command cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No directory of PATH has it.
    #[error("command {0:?} was not found in PATH{hint}", hint = ForShell(.0))]
    NotInPath(OsString),
    /// There is nothing at this path.
    #[error("{0:?} does not exist{hint}", hint = ForShell(.0.as_os_str()))]
    NotFound(PathBuf),
    /// There is something that may not be executed.
    #[error("{0:?} is not executable")]
    NotExecutable(PathBuf),
    /// There is a directory.
    #[error("{0:?} is a directory, not a command")]
    Directory(PathBuf),
}

/// Command to type instead, if a command looks like a line for a shell.
struct ForShell<'a>(&'a OsStr);

impl std::fmt::Display for ForShell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_line = |byte: &u8| b" \t\n|&;<>()$`*?\"'".contains(byte);
        if !self.0.as_bytes().iter().any(is_line) {
            return Ok(());
        }
        write!(f, "; no shell is started: to run it in one, write {}", code::for_shell(self.0))
    }
}

/// Checks that a template's command exists and may be executed. One that differs from task to
/// task passes.
///
/// # Errors
///
/// When the command does not exist or cannot be run.
pub fn check_program(template: &Template) -> Result<(), ProgramError> {
    match template.program() {
        Some(program) => match find(program) {
            // The job may say that tasks have fields, and then this is one.
            Err(_) if program.as_bytes().contains(&b'{') => Ok(()),
            found => found.map(drop),
        },
        None => Ok(()),
    }
}

/// Checks that a command that is one word with a replacement string in it is no line for a shell,
/// as in `'echo {} | cat'`: it begins with the name of a command, and then there is a space.
///
/// # Errors
///
/// When it is a line for a shell: the error has the words to type instead.
pub fn check_word(command: &[OsString]) -> Result<(), ProgramError> {
    let [word] = command else { return Ok(()) };
    let mut parts = word.as_bytes().splitn(2, |byte| *byte == b' ');
    match (parts.next(), parts.next()) {
        (Some(name), Some(_)) if !name.contains(&b'{') && find(OsStr::from_bytes(name)).is_ok() => {
            Err(ProgramError::NotInPath(word.clone()))
        }
        _ => Ok(()),
    }
}

/// The file that execvp(3) would run.
pub(super) fn find(program: &OsStr) -> Result<PathBuf, ProgramError> {
    let path = env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
    find_in(program, &path)
}

fn find_in(program: &OsStr, path: &OsStr) -> Result<PathBuf, ProgramError> {
    if program.as_bytes().contains(&b'/') {
        return check_file(PathBuf::from(program));
    }
    let mut found = ProgramError::NotInPath(program.to_owned());
    if program.is_empty() {
        return Err(found);
    }
    for directory in env::split_paths(path) {
        // An empty entry is the current directory; `./x` says so, and needs no second search.
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
        match check_file(directory.join(program)) {
            Ok(file) => return Ok(file),
            // Like execvp, go on: a later directory may have one that can be run.
            Err(ProgramError::NotExecutable(file)) => found = ProgramError::NotExecutable(file),
            Err(_) => {}
        }
    }
    Err(found)
}

fn check_file(file: PathBuf) -> Result<PathBuf, ProgramError> {
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(ProgramError::Directory(file)),
        Ok(_) if access(&file, Access::EXEC_OK).is_ok() => Ok(file),
        Ok(_) => Err(ProgramError::NotExecutable(file)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ProgramError::NotExecutable(file))
        }
        Err(_) => Err(ProgramError::NotFound(file)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::template::Input;

    #[test]
    fn command_is_found_as_execvp_finds_it() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for (name, mode) in [("a/plain", 0o644), ("b/plain", 0o755), ("a/text", 0o644)] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(at("a/folder")).unwrap();
        let path = env::join_paths([at("missing"), at("a"), at("b")]).unwrap();

        let check = |program: &OsStr, expected: Result<PathBuf, ProgramError>| {
            assert_eq!(find_in(program, &path), expected);
        };
        check("plain".as_ref(), Ok(at("b/plain")));
        check("text".as_ref(), Err(ProgramError::NotExecutable(at("a/text"))));
        check("folder".as_ref(), Err(ProgramError::NotInPath("folder".into())));
        check("nothing".as_ref(), Err(ProgramError::NotInPath("nothing".into())));
        check("".as_ref(), Err(ProgramError::NotInPath("".into())));
        check(at("b/plain").as_os_str(), Ok(at("b/plain")));
        check(at("a/plain").as_os_str(), Err(ProgramError::NotExecutable(at("a/plain"))));
        check(at("a/folder").as_os_str(), Err(ProgramError::Directory(at("a/folder"))));
        check(at("none").as_os_str(), Err(ProgramError::NotFound(at("none"))));
    }

    #[test]
    fn a_line_for_a_shell_is_shown_with_a_shell() {
        let check = |command: &[&str], wanted: Option<&str>| {
            let words: Vec<OsString> = command.iter().map(OsString::from).collect();
            let template = Template::parse(words.clone(), Input::Argument).unwrap();
            let found = check_program(&template).and_then(|()| check_word(&words));
            let hint = found.err().map(|error| error.to_string());
            let hint = hint.map(|text| text.split_once("write ").unwrap().1.to_owned());
            assert_eq!(hint.as_deref(), wanted, "{command:?}");
        };
        check(&["echo x | cat"], Some("sh -c 'echo x | cat'"));
        check(&["echo {} | cat"], Some("sh -c 'echo \"$1\" | cat' sh {}"));
        check(&["echo x"], Some("sh -c 'echo x'"));
        check(&["/bin/echo x"], Some("sh -c '/bin/echo x'"));
        check(&["echo $HOME", "x"], Some("sh -c 'echo $HOME'"));
        check(&["sh", "-c", "echo {} | cat"], None);
        check(&["./my scripts/{}"], None);
        check(&["{}"], None);
    }

    #[test]
    fn errors_are_clear_lines() {
        let check = |error: ProgramError, expected: &str| assert_eq!(error.to_string(), expected);
        check(ProgramError::NotInPath("foo".into()), r#"command "foo" was not found in PATH"#);
        check(ProgramError::NotFound("./x".into()), r#""./x" does not exist"#);
        check(ProgramError::NotExecutable("./x".into()), r#""./x" is not executable"#);
        check(ProgramError::Directory("/etc".into()), r#""/etc" is a directory, not a command"#);
    }

    #[test]
    fn command_with_a_blank_is_not_checked() {
        let check =
            |word: &str| check_program(&Template::parse([word], Input::Argument).unwrap()).is_ok();
        assert!(check("sh"));
        assert!(check("no-such-command-{}"));
        assert!(check("{1}"));
        assert!(!check("no-such-command"));
    }
}
