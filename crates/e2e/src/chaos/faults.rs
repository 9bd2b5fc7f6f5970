//! Faults: values that a seed decides before anything runs.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Kind of process that a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The ventilator, which dispatches tasks.
    Ventilator,
    /// A worker, which runs them.
    Worker,
    /// The sink, which stores records.
    Sink,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Time after the fault before it.
    pub after: Gap,
    /// Role of the process that it hits.
    pub role: Role,
    /// Number of the worker, counted from any of those that can suffer.
    pub worker: usize,
    /// Kind of the fault.
    pub kind: Kind,
}

/// Condition for a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gap {
    /// A time after the one before it.
    Time(Duration),
    /// A number of records after the one before it, once all processes are up again.
    Records(u64),
}

/// Kind of a fault, and its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `kill -9`; the time until it is started again.
    Kill(Duration),
    /// SIGSTOP; the time until SIGCONT.
    Stop(Duration),
    /// No packet comes or goes; the time until they do again.
    Cut(Duration),
}

/// Parts of a schedule.
#[derive(Clone, Debug)]
pub struct Tempo {
    /// Roles that faults hit.
    pub roles: Vec<Role>,
    /// Whether processes can be cut off.
    pub has_cuts: bool,
    /// Mean time between two faults.
    pub gap_mean: Duration,
    /// Time from the first fault to the last, at most.
    pub length: Duration,
}

const KILL_PAUSE_MAX: Duration = Duration::from_secs(1);
const STOP_PAUSE_MAX: Duration = Duration::from_secs(4);
const CUT_PAUSE_MIN: Duration = Duration::from_millis(200);
const CUT_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Faults for a time, at random.
#[must_use]
pub fn schedule(random: &mut Rng, tempo: &Tempo) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut time = Duration::ZERO;
    while !tempo.roles.is_empty() {
        let gap = tempo.gap_mean.mul_f64(gap_factor(random));
        time += gap;
        if time > tempo.length {
            break;
        }
        faults.push(Fault {
            after: Gap::Time(gap),
            role: tempo.roles[random.usize(..tempo.roles.len())],
            worker: random.usize(..64),
            kind: kind(random, tempo.has_cuts),
        });
    }
    faults
}

/// A number of kills of each of these roles, in random order, each once the job has got as far again.
#[must_use]
pub fn one_by_one(random: &mut Rng, roles: &[Role], kills: usize, records: u64) -> Vec<Fault> {
    let mut sufferers = roles.repeat(kills);
    random.shuffle(&mut sufferers);
    let fault = |role| Fault {
        after: Gap::Records(records),
        role,
        worker: random.usize(..64),
        kind: Kind::Kill(Duration::from_millis(random.u64(..100))),
    };
    sufferers.into_iter().map(fault).collect()
}

/// Of the mean, which is 1: even from almost none to twice, but for a quiet time now and then.
fn gap_factor(random: &mut Rng) -> f64 {
    if random.u8(..20) == 0 { 4.0 } else { random.f64() * 1.68 }
}

fn kind(random: &mut Rng, has_cuts: bool) -> Kind {
    match random.u8(..10) {
        0..=1 => Kind::Stop(skewed(random, Duration::ZERO, STOP_PAUSE_MAX, 2)),
        2..=3 if has_cuts => Kind::Cut(skewed(random, CUT_PAUSE_MIN, CUT_PAUSE_MAX, 4)),
        _ => Kind::Kill(skewed(random, Duration::ZERO, KILL_PAUSE_MAX, 1)),
    }
}

/// Anything from `min` to `max`, the shorter the likelier with a higher power.
fn skewed(random: &mut Rng, min: Duration, max: Duration, power: i32) -> Duration {
    min + (max - min).mul_f64(random.f64().powi(power))
}

impl Role {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::Ventilator, Self::Worker, Self::Sink];

    /// Its place in [`Role::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The program's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ventilator => "ventilator",
            Self::Worker => "worker",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| "a role is ventilator, worker or sink".to_owned())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(pause) => write!(f, "is killed, and started {pause:.3?} later"),
            Self::Stop(pause) => write!(f, "is stopped for {pause:.3?}"),
            Self::Cut(pause) => write!(f, "is cut off for {pause:.3?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tempo(has_cuts: bool) -> Tempo {
        Tempo {
            roles: Role::ALL.to_vec(),
            has_cuts,
            gap_mean: Duration::from_millis(450),
            length: Duration::from_secs(600),
        }
    }

    fn count(faults: &[Fault], wanted: impl Fn(&Fault) -> bool) -> usize {
        faults.iter().filter(|fault| wanted(fault)).count()
    }

    #[test]
    fn a_seed_brings_back_its_faults() {
        let faults = |seed| schedule(&mut Rng::with_seed(seed), &tempo(true));
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
    }

    #[test]
    fn each_role_is_killed_often_and_each_kind_occurs() {
        for (seed, has_cuts) in [(1, true), (2, false), (3, true), (4, false)] {
            let faults = schedule(&mut Rng::with_seed(seed), &tempo(has_cuts));
            for role in Role::ALL {
                let of = |kind: fn(&Kind) -> bool| {
                    count(&faults, |fault| fault.role == role && kind(&fault.kind))
                };
                assert!(of(|kind| matches!(kind, Kind::Kill(_))) > 200, "seed {seed}, {role}");
                assert!(of(|kind| matches!(kind, Kind::Stop(_))) > 50, "seed {seed}, {role}");
                let cuts = of(|kind| matches!(kind, Kind::Cut(_)));
                assert!(if has_cuts { cuts > 50 } else { cuts == 0 }, "seed {seed}, {role}");
            }
        }
    }

    #[test]
    fn a_schedule_is_as_long_as_asked_and_its_pauses_are_bounded() {
        let faults = schedule(&mut Rng::with_seed(5), &tempo(true));
        let mut time = Duration::ZERO;
        for fault in &faults {
            let Gap::Time(gap) = fault.after else { panic!("{fault:?}") };
            time += gap;
            let (pause, min, max) = match fault.kind {
                Kind::Kill(pause) => (pause, Duration::ZERO, KILL_PAUSE_MAX),
                Kind::Stop(pause) => (pause, Duration::ZERO, STOP_PAUSE_MAX),
                Kind::Cut(pause) => (pause, CUT_PAUSE_MIN, CUT_PAUSE_MAX),
            };
            assert!((min..=max).contains(&pause), "{fault:?}");
        }
        assert!(time <= Duration::from_secs(600));
        assert!(time > Duration::from_secs(590));
        assert!(
            schedule(&mut Rng::with_seed(5), &Tempo { roles: vec![], ..tempo(true) }).is_empty()
        );
    }

    #[test]
    fn one_by_one_kills_each_role_so_often() {
        let faults = one_by_one(&mut Rng::with_seed(3), &[Role::Worker, Role::Sink], 4, 9);
        assert_eq!(count(&faults, |fault| fault.role == Role::Worker), 4);
        assert_eq!(count(&faults, |fault| fault.role == Role::Sink), 4);
        assert_eq!(count(&faults, |fault| fault.after != Gap::Records(9)), 0);
        assert_eq!(count(&faults, |fault| !matches!(fault.kind, Kind::Kill(_))), 0);
    }
}
