//! Rounds in which each program has its turn: other load on the machine hits all alike.

use anyhow::Result;

use crate::figure::{Figure, Series};
use crate::lab::Lab;
use crate::report::number;

/// Characters of a reason for which the table has room.
const REASON_CHARS_MAX: usize = 60;

/// Program that takes part.
pub(crate) struct Contestant<'a> {
    who: String,
    run: Result<Run<'a>>,
}

/// Measures a value for each figure.
type Run<'a> = Box<dyn FnMut() -> Result<Vec<f64>> + 'a>;

impl<'a> Contestant<'a> {
    pub(crate) fn new(who: impl Into<String>, run: impl FnMut() -> Result<Vec<f64>> + 'a) -> Self {
        Self { who: who.into(), run: Ok(Box::new(run)) }
    }

    /// Creates one that takes part if the peer is installed.
    pub(crate) fn with<P>(
        who: impl Into<String>,
        peer: Result<P>,
        mut run: impl FnMut(&P) -> Result<Vec<f64>> + 'a,
    ) -> Self
    where
        P: 'a,
    {
        let run = peer.map(|peer| Box::new(move || run(&peer)) as Run<'a>);
        Self { who: who.into(), run }
    }
}

/// Measures each once a round. One that fails is left out of further rounds.
pub(crate) fn interleave(
    lab: &Lab,
    mut figures: Vec<Figure>,
    mut contestants: Vec<Contestant<'_>>,
) -> Vec<Figure> {
    for figure in &mut figures {
        figure.series = contestants.iter().map(|c| c.series(lab.rounds)).collect();
    }
    for round in 0..lab.rounds {
        for (index, contestant) in contestants.iter_mut().enumerate() {
            let Ok(run) = &mut contestant.run else { continue };
            let values = run();
            let name = &figures[0].name;
            let turn = format!("{name}, {}/{}, {}", round + 1, lab.rounds, contestant.who);
            match values {
                Ok(values) => {
                    let units = values.iter().zip(&figures);
                    let said = units.map(|(value, figure)| number(*value, figure.unit));
                    eprintln!("{turn}: {}", said.collect::<Vec<_>>().join(", "));
                    for (figure, value) in figures.iter_mut().zip(values) {
                        figure.series[index].values[round] = Some(value);
                    }
                }
                Err(error) => {
                    eprintln!("{turn}: failed: {error:#}");
                    for figure in &mut figures {
                        figure.series[index].skipped = Some(format!("failed: {}", brief(&error)));
                    }
                    contestant.run = Err(error);
                }
            }
        }
    }
    figures
}

/// Shortens a reason for a cell of the table.
fn brief(error: &anyhow::Error) -> String {
    let said = format!("{error:#}");
    let line = said.lines().next().unwrap_or_default();
    if line.chars().count() <= REASON_CHARS_MAX {
        return line.to_owned();
    }
    line.chars().take(REASON_CHARS_MAX).chain("...".chars()).collect()
}

impl Contestant<'_> {
    fn series(&self, rounds: usize) -> Series {
        let skipped = self.run.as_ref().err().map(|reason| format!("{reason:#}"));
        Series { who: self.who.clone(), values: vec![None; rounds], skipped }
    }
}
