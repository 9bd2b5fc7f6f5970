//! The suite: scenarios, the ways in which each is played, and the outcome of each.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{Stage, Way};

/// Something that a liar does, and what has to come of it.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Outcome that is required, in words.
    pub(crate) required: &'static str,
    /// Ways in which it is played.
    pub(crate) ways: &'static [Way],
    /// Plays it; panics if what is required does not come about. Returns what was seen.
    pub(crate) play: fn(&Stage) -> Seen,
}

/// What was seen.
pub(crate) enum Seen {
    /// The required outcome, and some of its figures.
    Held(String),
    /// It cannot be played on this machine.
    Skipped(String),
}

impl From<String> for Seen {
    fn from(text: String) -> Self {
        Self::Held(text)
    }
}

impl From<&str> for Seen {
    fn from(text: &str) -> Self {
        Self::Held(text.to_owned())
    }
}

/// Scenarios of one kind.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) scenarios: &'static [Scenario],
    /// Scenarios that hold only with keys, and what comes of them without: by design.
    pub(crate) undefended: &'static [(&'static str, &'static str)],
}

/// Scenario whose outcome is not the required one yet, and why.
#[allow(dead_code, reason = "at best there is none")]
pub(crate) struct NotYet {
    pub(crate) scenario: &'static str,
    /// `None`: in none of its ways.
    pub(crate) way: Option<Way>,
    pub(crate) why: &'static str,
}

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Ok,
    Failed,
    NotYet,
    Skipped,
}

struct Entry<'a> {
    scenario: &'a Scenario,
    way: Way,
    not_yet: Option<&'static str>,
}

/// Number of outcomes by verdict.
pub(crate) type Counts = BTreeMap<Verdict, usize>;

/// Number of scenarios that are played beside one another: most of the time they wait.
const TOGETHER: usize = 6;

/// Plays the scenarios with these names, or all.
pub(crate) fn play(groups: &[Group], not_yet: &[NotYet], names: &[String]) -> io::Result<Counts> {
    let is_wanted = |group: &Group, scenario: &Scenario| {
        names.is_empty() || names.iter().any(|name| *name == group.name || *name == scenario.name)
    };
    let mut entries = Vec::new();
    for group in groups {
        for scenario in group.scenarios.iter().filter(|it| is_wanted(group, it)) {
            entries.extend(scenario.ways.iter().map(|way| {
                let reason = not_yet.iter().find(|it| {
                    it.scenario == scenario.name && it.way.is_none_or(|only| only == *way)
                });
                Entry { scenario, way: *way, not_yet: reason.map(|it| it.why) }
            }));
        }
    }
    let began = Instant::now();
    // Each scenario says what is wrong when it is caught.
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(Counts::new());
    thread::scope(|scope| {
        for _ in 0..TOGETHER {
            scope.spawn(|| {
                while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (verdict, line) = played(entry);
                    *counts.lock().expect("none panics").entry(verdict).or_default() += 1;
                    let _ = writeln!(io::stdout(), "{line}");
                }
            });
        }
    });
    let counts = counts.into_inner().expect("none panics");
    let mut out = io::stdout();
    if names.is_empty() {
        writeln!(
            out,
            "\nnot defended without keys, by design (--insecure), and so played with keys:"
        )?;
        for (name, what) in groups.iter().flat_map(|group| group.undefended) {
            writeln!(out, "    {name:<22} {what}")?;
        }
    }
    if !not_yet.is_empty() {
        writeln!(out, "\nexpected: not yet")?;
        for NotYet { scenario, way, why } in not_yet {
            let way = way.map_or_else(|| "all ways".to_owned(), |way| way.to_string());
            writeln!(out, "    {scenario:<22} {way:<19} {why}")?;
        }
    }
    writeln!(out, "\n{} in {:.0} s", summary(&counts), began.elapsed().as_secs_f64())?;
    Ok(counts)
}

/// Returns whether a group or a scenario has this name.
pub(crate) fn is_known(groups: &[Group], name: &str) -> bool {
    let mut groups = groups.iter();
    groups.any(|group| group.name == name || group.scenarios.iter().any(|it| it.name == name))
}

/// Prints all scenarios.
pub(crate) fn list(groups: &[Group]) -> io::Result<()> {
    let mut out = io::stdout();
    for group in groups {
        writeln!(out, "{}", group.name)?;
        for Scenario { name, required, ways, .. } in group.scenarios {
            let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
            writeln!(out, "    {name:<22} {required} ({})", ways.join(", "))?;
        }
    }
    Ok(())
}

/// The counts in words.
pub(crate) fn summary(counts: &Counts) -> String {
    let of = |verdict| counts.get(&verdict).copied().unwrap_or(0);
    let mut text = format!("{} passed, {} failed", of(Verdict::Ok), of(Verdict::Failed));
    for (verdict, what) in [(Verdict::NotYet, "not yet"), (Verdict::Skipped, "skipped")] {
        if of(verdict) > 0 {
            text += &format!(", {} {what}", of(verdict));
        }
    }
    text
}

fn played(entry: &Entry<'_>) -> (Verdict, String) {
    let Entry { scenario, way, not_yet } = entry;
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.play)(&Stage { way: *way })));
    let (verdict, word, text) = match (outcome, not_yet) {
        (Ok(Seen::Skipped(why)), _) => (Verdict::Skipped, "skipped", why),
        (Ok(Seen::Held(seen)), None) => (Verdict::Ok, "ok", seen),
        (Ok(Seen::Held(seen)), Some(_)) => {
            (Verdict::Ok, "ok", format!("{seen} (it is listed as not yet: take it off the list)"))
        }
        (Err(panic), Some(why)) => {
            (Verdict::NotYet, "not yet", format!("{why}: {}", said(&*panic)))
        }
        (Err(panic), None) => {
            let text = format!("required: {}; seen: {}", scenario.required, said(&*panic));
            (Verdict::Failed, "FAILED", text)
        }
    };
    let took = began.elapsed();
    (verdict, line(scenario.name, *way, word, took, &text))
}

fn line(name: &str, way: Way, word: &str, took: Duration, text: &str) -> String {
    format!("{name:<22} {way:<19} {word:<8} {:>5.1} s  {text}", took.as_secs_f64())
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    // What programs say may have many lines, and some of them are hostile.
    let mut text: String = text.chars().take(SAID_MAX).flat_map(shown).collect();
    text.truncate(text.trim_end().len());
    text
}

fn shown(c: char) -> Vec<char> {
    if c == '\n' {
        vec![' ', '|', ' ']
    } else if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}

/// Length of what is shown of a failure.
const SAID_MAX: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    const HELD: Scenario = Scenario {
        name: "held",
        required: "it holds",
        ways: &[Way::Plain],
        play: |_| "fine".into(),
    };
    const BROKEN: Scenario = Scenario { name: "broken", play: |_| panic!("no\n\x1b[2J"), ..HELD };
    const ABSENT: Scenario =
        Scenario { name: "absent", play: |_| Seen::Skipped("not root".into()), ..HELD };

    #[track_caller]
    fn check(scenario: &Scenario, not_yet: Option<&'static str>, verdict: Verdict, said: &str) {
        let (found, line) = played(&Entry { scenario, way: Way::Plain, not_yet });
        assert_eq!(found, verdict, "{line}");
        assert!(line.contains(said), "{line}");
    }

    #[test]
    fn a_scenario_ends_in_one_of_four_ways() {
        check(&HELD, None, Verdict::Ok, "fine");
        check(&HELD, Some("soon"), Verdict::Ok, "take it off the list");
        check(&BROKEN, None, Verdict::Failed, "required: it holds; seen: no | \\u{1b}[2J");
        check(&BROKEN, Some("soon"), Verdict::NotYet, "soon: no");
        check(&ABSENT, None, Verdict::Skipped, "not root");
    }

    #[test]
    fn the_summary_counts_all() {
        let counts = Counts::from([(Verdict::Ok, 3), (Verdict::NotYet, 2)]);
        assert_eq!(summary(&counts), "3 passed, 0 failed, 2 not yet");
    }
}
