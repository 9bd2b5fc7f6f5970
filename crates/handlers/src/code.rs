//! Programs whose words are code: a task that is put into one becomes code too, whatever it says.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::quote;
use super::template::{Template, pieces_of};

/// A replacement string stands inside a word that a program reads as code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}; to run it all the same, give --unsafe-template", self.about())]
pub struct CodeError {
    /// Name of the program, with the flag before the code.
    program: String,
    /// The word, as it is typed.
    word: String,
    /// The same without the danger.
    advice: String,
}

impl CodeError {
    /// Returns what is wrong and what to type instead, without the flag that allows it.
    #[must_use]
    pub fn about(&self) -> String {
        let Self { program, word, advice } = self;
        format!(
            "{program} reads the word {word} as code, and so whatever a task puts into it: {advice}"
        )
    }
}

/// A word of a command as this module sees it.
pub(super) struct CodeWord<'a> {
    /// What was typed.
    pub(super) text: &'a OsStr,
    pub(super) pieces: Vec<Piece>,
}

/// A part of a word.
pub(super) enum Piece {
    Text(Vec<u8>),
    /// A replacement string that a part of a task is put in place of.
    OfTask(String),
}

impl CodeWord<'_> {
    /// Returns whether a part of a task is put into it.
    fn is_filled(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::OfTask(_)))
    }

    /// Returns whether it is one replacement string: then the task is the code, and is meant to be.
    fn is_whole(&self) -> bool {
        matches!(self.pieces[..], [Piece::OfTask(_)])
    }
}

/// A program that reads code from a word.
struct Language {
    names: &'static [&'static str],
    place: Place,
    /// Letters of options that take an argument: the rest of the word, or the next one.
    with_argument: &'static [u8],
    /// Letters of options after which all words are a script's.
    ends: &'static [u8],
    safe: Safe,
}

/// Where the code is.
enum Place {
    /// After an option of one of these letters, or in the same word.
    Option(&'static [u8], &'static [&'static str]),
    /// In the first word that is no option, if an option of this letter comes before.
    Operand(u8),
    /// In the first word that is no option, unless one of these letters says where else.
    First(&'static [u8]),
    /// In all words after the first that is no option.
    Rest,
}

/// How a program takes a task that is not code.
enum Safe {
    /// As the first argument of a shell, after its name.
    Shell,
    /// As arguments, which have a name with a number in it: the number of the first is given.
    Argument(&'static str, usize, &'static str),
    /// At its standard input.
    Stdin,
    /// As the argument of a script.
    Script,
}

const LANGUAGES: &[Language] = &[
    Language {
        names: &["sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "rbash"],
        place: Place::Operand(b'c'),
        with_argument: b"oO",
        ends: b"",
        safe: Safe::Shell,
    },
    Language {
        names: &["fish"],
        place: Place::Option(b"c", &["--command"]),
        with_argument: b"C",
        ends: b"",
        safe: Safe::Argument("$argv[", 1, "]"),
    },
    Language {
        names: &["python", "pypy"],
        place: Place::Option(b"c", &[]),
        with_argument: b"WX",
        ends: b"m",
        safe: Safe::Argument("sys.argv[", 1, "]"),
    },
    Language {
        names: &["perl"],
        place: Place::Option(b"eE", &[]),
        with_argument: b"CDFIMmix",
        ends: b"",
        safe: Safe::Argument("$ARGV[", 0, "]"),
    },
    Language {
        names: &["ruby"],
        place: Place::Option(b"e", &[]),
        with_argument: b"CEFIKirx",
        ends: b"",
        safe: Safe::Argument("ARGV[", 0, "]"),
    },
    Language {
        names: &["node", "nodejs", "deno", "bun"],
        place: Place::Option(b"ep", &["--eval", "--print", "eval"]),
        with_argument: b"r",
        ends: b"",
        safe: Safe::Argument("process.argv[", 1, "]"),
    },
    Language {
        names: &["php"],
        place: Place::Option(b"rBRE", &["--run"]),
        with_argument: b"cdfz",
        ends: b"",
        safe: Safe::Argument("$argv[", 1, "]"),
    },
    Language {
        names: &["lua", "luajit"],
        place: Place::Option(b"e", &[]),
        with_argument: b"l",
        ends: b"",
        safe: Safe::Script,
    },
    Language {
        names: &["Rscript", "R"],
        place: Place::Option(b"e", &[]),
        with_argument: b"",
        ends: b"",
        safe: Safe::Argument("commandArgs(TRUE)[", 1, "]"),
    },
    Language {
        names: &["awk", "gawk", "mawk", "nawk", "original-awk"],
        place: Place::First(b"fe"),
        with_argument: b"Fvil",
        ends: b"",
        safe: Safe::Argument("ARGV[", 1, "]"),
    },
    Language {
        names: &["sed", "gsed"],
        place: Place::First(b"fe"),
        with_argument: b"l",
        ends: b"",
        safe: Safe::Script,
    },
    Language {
        names: &["su", "runuser", "script", "flock", "sg"],
        place: Place::Option(b"c", &["--command", "--session-command"]),
        with_argument: b"EgGsuwWTIOB",
        ends: b"",
        safe: Safe::Script,
    },
    Language {
        names: &["ssh"],
        place: Place::Rest,
        with_argument: b"BbcDEeFIiJLlmOoPpQRSWw",
        ends: b"",
        safe: Safe::Stdin,
    },
];

/// Programs that start another one, which their words name.
const STARTERS: &[&str] = &[
    "busybox",
    "chroot",
    "chrt",
    "doas",
    "docker",
    "env",
    "flock",
    "ionice",
    "kubectl",
    "nice",
    "nohup",
    "numactl",
    "parallel",
    "podman",
    "runuser",
    "setsid",
    "srun",
    "ssh",
    "stdbuf",
    "strace",
    "su",
    "sudo",
    "systemd-run",
    "taskset",
    "time",
    "timeout",
    "unshare",
    "valgrind",
    "watch",
    "xargs",
];

/// Checks that no task is put into code: a word with other text beside the replacement string. A word
/// that is one replacement string is meant, as in `sh -c {}`.
///
/// # Errors
///
/// When one is: the error has the words to type instead.
pub(super) fn check_code(template: &Template) -> Result<(), CodeError> {
    let words = template.code_words();
    let starts =
        |word: &CodeWord| STARTERS.iter().any(|name| name.as_bytes() == basename(word.text));
    // Elsewhere the name of a program is a word like others, as in `grep sed {}.txt`.
    let programs = if words.first().is_some_and(starts) { words.len() } else { 1 };
    let fixed = words.iter().enumerate().take(programs).filter(|(_, word)| !word.is_filled());
    for (at, word) in fixed {
        let Some(language) = Language::of(word.text) else { continue };
        if let Some(code) = language.code(&words[at + 1..]) {
            return Err(language.error(word.text, &words[at + 1..], code));
        }
    }
    Ok(())
}

fn basename(program: &OsStr) -> &[u8] {
    program.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

impl Language {
    fn of(program: &OsStr) -> Option<&'static Self> {
        let name = basename(program);
        // python3, python3.11, lua5.4
        let end = name.iter().rposition(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let is_name = |other: &&str| other.as_bytes() == name || other.as_bytes() == &name[..=end];
        LANGUAGES.iter().find(|language| language.names.iter().any(is_name))
    }

    /// Returns which of the words after the program is code with a part of a task in it.
    fn code(&self, words: &[CodeWord]) -> Option<usize> {
        let is_unsafe = |at: &usize| {
            let word: Option<&CodeWord> = words.get(*at);
            word.is_some_and(|word| word.is_filled() && !word.is_whole())
        };
        let (mut at, mut is_announced) = (0, false);
        while let Some(word) = words.get(at) {
            let here = at;
            at += 1;
            let text = word.text.as_bytes();
            let is_option = text.len() > 1 && matches!(text[0], b'-' | b'+');
            if let Place::Option(_, names) = self.place
                && let Some(name) = names.iter().find(|name| text.starts_with(name.as_bytes()))
            {
                let code = if text.len() > name.len() { here } else { here + 1 };
                if is_unsafe(&code) {
                    return Some(code);
                }
                at = code + 1;
                continue;
            }
            if text == b"--" {
                continue;
            }
            if !is_option || word.is_whole() {
                return match self.place {
                    // An operand may come before the option, as of su; a script has its own options.
                    Place::Option(..) if matches!(self.safe, Safe::Script) => continue,
                    Place::Option(..) => None,
                    Place::Operand(_) => Some(here).filter(|at| is_announced && is_unsafe(at)),
                    Place::First(_) => Some(here).filter(is_unsafe),
                    Place::Rest => (at..words.len()).find(is_unsafe),
                };
            }
            if text.starts_with(b"--") {
                continue;
            }
            let Some(letter) = text[1..].iter().position(|letter| self.stops_at(*letter)) else {
                continue;
            };
            if self.ends.contains(&text[letter + 1]) {
                return None;
            }
            let is_last = letter + 2 == text.len();
            let is_code = match self.place {
                Place::Option(letters, _) => letters.contains(&text[letter + 1]),
                // Code from a file, or after the option: there is none in an operand.
                Place::First(letters) if letters.contains(&text[letter + 1]) => {
                    let code = if is_last { here + 1 } else { here };
                    return Some(code).filter(|at| text[letter + 1] == b'e' && is_unsafe(at));
                }
                Place::Operand(flag) => {
                    is_announced |= text[1..].contains(&flag);
                    false
                }
                Place::First(_) | Place::Rest => false,
            };
            let argument = if is_last { here + 1 } else { here };
            if is_code && is_unsafe(&argument) {
                return Some(argument);
            }
            let takes_next = is_last && text[letter + 1] != self.flag();
            at = if takes_next { here + 2 } else { here + 1 };
        }
        None
    }

    /// Letter of an option that says that code follows, but not where.
    fn flag(&self) -> u8 {
        if let Place::Operand(flag) = self.place { flag } else { 0 }
    }

    /// Returns whether what follows this letter in its word is no more options.
    fn stops_at(&self, letter: u8) -> bool {
        let is_code = match self.place {
            Place::Option(letters, _) | Place::First(letters) => letters.contains(&letter),
            Place::Operand(flag) => letter == flag,
            Place::Rest => false,
        };
        is_code || self.with_argument.contains(&letter) || self.ends.contains(&letter)
    }

    fn error(&self, program: &OsStr, words: &[CodeWord], code: usize) -> CodeError {
        let name = program.to_string_lossy().into_owned();
        let word = words[code].text.as_bytes();
        let line = |name: &dyn Fn(usize, &[u8]) -> String, after: &str| {
            let mut line = vec![program.as_bytes()];
            line.extend(words[..code].iter().map(|word| word.text.as_bytes()));
            let (word, tasks) = replaced(&words[code].pieces, name);
            line.push(&word);
            let line = quote::line(line.into_iter());
            format!("{}{after} {}", String::from_utf8_lossy(&line), tasks.join(" "))
        };
        let advice = match self.safe {
            Safe::Shell => {
                let line = line(&|n, before| in_shell(n + 1, before), &format!(" {name}"));
                format!("give the task as an argument, as in {line}")
            }
            Safe::Argument(before, first, after) => {
                let line = line(&|n, _| format!("{before}{}{after}", n + first), "");
                format!("give the task as an argument, as in {line}")
            }
            Safe::Stdin => "let it read the task at its standard input, with --stdin".to_owned(),
            Safe::Script => "write the code to a file, and give the task as an argument".to_owned(),
        };
        let word = String::from_utf8_lossy(&quote::line([word].into_iter())).into_owned();
        CodeError { program: name, word, advice }
    }
}

/// Returns the command that runs a line in a shell, with its replacement strings outside the code.
pub(super) fn for_shell(line: &OsStr) -> String {
    let (code, strings) = replaced(&pieces_of(line), &|n, before| in_shell(n + 1, before));
    let words = [&b"sh"[..], b"-c", &code];
    let command = String::from_utf8_lossy(&quote::line(words.into_iter())).into_owned();
    if strings.is_empty() { command } else { format!("{command} sh {}", strings.join(" ")) }
}

/// Puts names in the place of the replacement strings, and of the quotes around them; returns the strings
/// as well, each once, in the order of the names.
fn replaced(pieces: &[Piece], name: &dyn Fn(usize, &[u8]) -> String) -> (Vec<u8>, Vec<String>) {
    let (mut text, mut strings) = (Vec::new(), Vec::new());
    let mut quote = None;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(piece) => {
                let closing = quote.take().filter(|quote| piece.first() == Some(quote));
                text.extend_from_slice(&piece[usize::from(closing.is_some())..]);
            }
            Piece::OfTask(string) => {
                let quotes = text.last().copied().filter(|byte| matches!(byte, b'"' | b'\''));
                let is_closed = |quote: &u8| matches!(pieces.get(at + 1), Some(Piece::Text(next)) if next.first() == Some(quote));
                quote = quotes.filter(is_closed);
                if quote.is_some() {
                    text.pop();
                }
                let known = strings.iter().position(|other| other == string);
                let number = known.unwrap_or_else(|| {
                    strings.push(string.clone());
                    strings.len() - 1
                });
                let name = name(number, &text);
                text.extend_from_slice(name.as_bytes());
            }
        }
    }
    (text, strings)
}

/// Returns an argument of a shell's code, after the code before it.
fn in_shell(number: usize, before: &[u8]) -> String {
    let mut quote = None;
    for byte in before.iter().filter(|byte| matches!(byte, b'"' | b'\'')) {
        match quote {
            None => quote = Some(byte),
            Some(open) if open == byte => quote = None,
            Some(_) => {}
        }
    }
    match quote {
        None => format!("\"${number}\""),
        Some(b'"') => format!("${{{number}}}"),
        Some(_) => format!("'\"${number}\"'"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::Input;
    use super::*;

    fn check(words: &[&str]) -> Result<(), CodeError> {
        check_code(&Template::parse(words, Input::Argument).unwrap())
    }

    #[test]
    fn tasks_inside_code_are_refused() {
        for words in [
            &["sh", "-c", "cat {}"][..],
            &["/bin/sh", "-c", "cat {} | wc"],
            &["bash", "-ec", "echo '{}'"],
            &["bash", "-c", "-e", "echo {}"],
            &["bash", "-o", "pipefail", "-c", "cat {/} | wc"],
            &["bash", "--norc", "-c", "echo {.}"],
            &["env", "A=1", "timeout", "5", "dash", "-c", "echo {//}", "sh", "{}"],
            &["zsh", "-fc", "echo {}{}"],
            &["ksh", "-c", "--", "echo {}"],
            &["python3", "-c", "print('{}')"],
            &["python3.11", "-W", "ignore", "-Sc", "print('{}')"],
            &["python", "-cprint('{}')"],
            &["perl", "-e", "print '{}'"],
            &["perl", "-Mutf8", "-lne", "print if /{}/", "file"],
            &["perl", "-e", "1;", "-e", "print '{}'"],
            &["ruby", "-e", "puts '{}'"],
            &["node", "--eval=f('{}')"],
            &["node", "-p", "'{}'.length"],
            &["php", "-r", "echo '{}';"],
            &["awk", "/{}/ { print }", "file"],
            &["gawk", "-F", ":", "-v", "x=1", "$1 == \"{}\"", "file"],
            &["awk", "--", "/{}/", "file"],
            &["sed", "-n", "s/a/{}/p", "file"],
            &["sed", "-e", "s/a/{}/", "file"],
            &["su", "somebody", "-c", "cat {}"],
            &["/usr/bin/nice", "-n", "5", "sh", "-c", "cat {}"],
            &["flock", "lock", "-c", "cat {}"],
            &["ssh", "-p", "22", "host", "cat {} | wc"],
        ] {
            assert!(check(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn tasks_that_are_data_or_all_of_the_code_pass() {
        for words in [
            &["sh", "-c", "cat \"$1\"", "sh", "{}"][..],
            &["sh", "-c", "echo $1", "sh", "x{}"],
            &["sh", "-c", "{}"],
            &["bash", "-c", "{}"],
            &["sh", "-c", "echo job {#} in slot {%}"],
            &["sh", "script", "a{}"],
            &["sh", "-x", "script-c", "-c", "a{}"],
            &["python3", "-c", "import sys", "a{}"],
            &["python3", "script.py", "-c", "a{}"],
            &["python3", "-m", "module", "-c", "x{}"],
            &["perl", "-Mopen", "script", "a{}"],
            &["perl", "-ne", "print", "{}.txt"],
            &["awk", "{ print }", "{}.txt"],
            &["awk", "-v", "x={}", "{ print x }"],
            &["awk", "-f", "script", "{}.txt"],
            &["sed", "s/a/b/", "{}.txt"],
            &["ssh", "{}@host", "uptime"],
            &["ssh", "host", "cat", "{}"],
            &["convert", "{}", "-e", "{.}.png"],
            &["cat", "{}.txt"],
            &["grep", "sed", "{}.txt"],
            &["./sort.sh", "awk", "{}.txt"],
        ] {
            assert_eq!(check(words), Ok(()), "{words:?}");
        }
    }

    #[test]
    fn the_error_has_what_to_type_instead() {
        let text = check(&["bash", "-c", "gzip -c '{}' > {}.gz"]).unwrap_err().to_string();
        assert!(text.contains(r#"bash -c 'gzip -c "$1" > "$1".gz' bash {}"#), "{text}");
        assert!(text.contains("--unsafe-template"), "{text}");
        let text = check(&["sh", "-c", "mv {} \"{.}.old\"; rm {}"]).unwrap_err().to_string();
        assert!(text.contains(r#"sh -c 'mv "$1" "${2}.old"; rm "$1"' sh {} {.}"#), "{text}");
        let text = check(&["sh", "-c", "echo ${HOME} {} {#}"]).unwrap_err().to_string();
        assert!(text.contains(r#"sh -c 'echo ${HOME} "$1" {#}' sh {}"#), "{text}");
        let text = check(&["awk", "/{}/ {print}"]).unwrap_err().to_string();
        assert!(text.contains(r#"awk '/ARGV[1]/ {print}' {}"#), "{text}");
        let text = check(&["python3", "-c", "print('{}')"]).unwrap_err().to_string();
        assert!(text.contains("python3 -c 'print(sys.argv[1])' {}"), "{text}");
    }
}
