//! U: uneven work, and the time that it takes beyond that of workers that are all busy to the end.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::schedule::{Sleeps, Speeds};
use crate::figure::{Bound, Figure, Outcome, Unit};
use crate::lab::{Lab, Place};
use crate::peer::bare::{Bare, Work};
use crate::peer::beanstalkd::{Beanstalkd, Kept};
use crate::peer::dask::Dask;
use crate::peer::{shell, tradewind};
use crate::process::{Program, finish_all};
use crate::rounds::{Contestant, interleave};

const OURS: &str = "Tradewind";
const LIBZMQ: &str = "libzmq in C";
const BEANSTALKD: &str = "beanstalkd";
const DASK: &str = "Dask";
const XARGS: &str = "xargs -P 4 -n 1";
const PARALLEL: &str = "parallel -j 4";
const IDEAL: &str = "in order, in no time (computed)";

const EQUAL: &Speeds = &[1.0, 1.0, 1.0, 1.0];
const ONE_SLOW: &Speeds = &[1.0, 1.0, 1.0, 0.1];

const NOTE: &str = "U: 200 sleeps of lognormal length (sigma 1), always the same, four workers of one \
    slot; time from start to exit (Dask's from the first task sent to the last result), divided by the larger of all lengths ÷ the speed of all workers \
    and the longest. Computed: the next task, in order, for the worker that is free first, in no time, as a \
    queue can do that does not know the lengths.";

pub(crate) fn measure(lab: &Lab) -> Result<Outcome> {
    let sleeps = Sleeps::lognormal(lab.count(12, 8) as f64);
    let place = lab.place()?;
    let input = sleeps.write(&place)?;
    let mut outcome = Outcome::default();
    for (speeds, name, at_most) in [
        (EQUAL, "uneven tasks, time ÷ the least possible", 1.03),
        (ONE_SLOW, "uneven, one worker ten times slower, time ÷ the least possible", 1.05),
    ] {
        let race = Race { lab, sleeps: &sleeps, input: &input, speeds };
        let figures = vec![Figure::new('U', name, Unit::Times)];
        let figures = interleave(lab, figures, race.contestants());
        let figure = figures[0].spread(OURS);
        outcome.target('U', name, Bound::AtMost(at_most), Unit::Times, figure);
        outcome.figures.extend(figures);
    }
    outcome.notes.push(NOTE.into());
    Ok(outcome)
}

#[derive(Clone, Copy)]
struct Race<'a> {
    lab: &'a Lab,
    sleeps: &'a Sleeps,
    input: &'a Path,
    speeds: &'a Speeds,
}

impl<'a> Race<'a> {
    fn contestants(self) -> Vec<Contestant<'a>> {
        let Self { lab, .. } = self;
        let mut all = vec![
            Contestant::new(OURS, move || self.score(|place| self.ours(place))),
            Contestant::with(LIBZMQ, Bare::libzmq(lab), move |peer| {
                self.score(|place| self.bare(place, peer))
            }),
            Contestant::with(BEANSTALKD, Beanstalkd::find(Kept::InMemory), move |peer| {
                self.score(|place| self.beanstalkd(place, peer))
            }),
            Contestant::with(DASK, Dask::find(lab), move |peer| {
                self.score(|place| self.dask(place, peer))
            }),
        ];
        // These have no workers, so none that is slow.
        if self.speeds == EQUAL {
            let jobs = self.speeds.len();
            all.push(Contestant::with(XARGS, shell::installed("xargs"), move |_| {
                self.score(|place| self.shell(place, shell::xargs(jobs, "sleep")?))
            }));
            all.push(Contestant::with(PARALLEL, shell::installed("parallel"), move |_| {
                self.score(|place| self.shell(place, shell::parallel(jobs, "sleep")?))
            }));
        }
        all.push(Contestant::new(IDEAL, move || {
            Ok(vec![self.sleeps.greedy(self.speeds) / self.sleeps.bound(self.speeds)])
        }));
        all
    }

    fn ours(self, place: &Place) -> Result<Duration> {
        let ours = self.lab.program("bench").to_string_lossy().into_owned();
        let slow: &[&str] = &["--slots", "1", "--", &ours, "role", "nap", "10"];
        let fast: &[&str] = &["--slots", "1", "--sleep"];
        let workers = self.speeds.iter().map(|speed| if *speed < 1.0 { slow } else { fast });
        let began = Instant::now();
        let output = place.path("output");
        let ring = tradewind::start_ring(self.lab, place, self.input, &output, workers)?;
        finish_all(ring)?;
        Ok(began.elapsed())
    }

    fn bare(self, place: &Place, peer: &Bare) -> Result<Duration> {
        let (count, output) = (self.sleeps.count(), place.path("output"));
        let began = Instant::now();
        peer.run(self.lab, place, self.input, count, &output, &self.workers())?;
        Ok(began.elapsed())
    }

    fn beanstalkd(self, place: &Place, peer: &Beanstalkd) -> Result<Duration> {
        let (count, output) = (self.sleeps.count(), place.path("output"));
        peer.run(self.lab, place, self.input, count, &output, &self.workers())
    }

    fn dask(self, place: &Place, peer: &Dask) -> Result<Duration> {
        peer.run(self.lab, place, self.input, &place.path("output"), &self.workers())
    }

    fn shell(self, place: &Place, program: Program) -> Result<Duration> {
        let output = File::create(place.path("output"))?;
        let program = program.stdin(File::open(self.input)?).stdout(output);
        let began = Instant::now();
        program.start()?.finish()?;
        Ok(began.elapsed())
    }

    fn workers(self) -> Vec<Work> {
        self.speeds.iter().map(|speed| Work::Sleep { slower: 1.0 / speed }).collect()
    }

    fn score(self, job: impl FnOnce(&Place) -> Result<Duration>) -> Result<Vec<f64>> {
        let took = job(&self.lab.place()?)?;
        Ok(vec![took.as_secs_f64() / self.sleeps.bound(self.speeds)])
    }
}
