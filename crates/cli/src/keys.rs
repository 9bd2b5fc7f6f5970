//! `tradewind keys`: makes keys, tokens for other hosts, and bans.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use rustix::fs::{FileType, Mode};
use tradewind_keys::{
    Addresses, Fingerprint, Folder, KEYS_ENV, Places, ROOT_LIFE, Role, Source, Token, UnixTime,
    default_folder, read_token, time_text,
};
use tradewind_lanes::Endpoint;
use tradewind_node::exit::{Fatal, OK, OUTPUT, OrExit, Outcome, SYSTEM, USAGE, say};
use tradewind_text::duration;

/// Make keys, so that only your own programs take part in a job
///
/// On one host: `tradewind keys new`. For each other host: `tradewind keys token worker`, saved there as
/// ~/.config/tradewind/token with mode 600. The programs find both by themselves.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

const EXAMPLES: &str = "\
Examples:
  tradewind keys new
  tradewind keys token worker --expires 30d --ventilator tcp://host1:5557 --sink tcp://host1:5558 > worker.token
  tradewind keys show
  tradewind keys rotate worker --overlap 7d
  tradewind keys ban 0123456789abcdef0123456789abcdef";

#[derive(Subcommand, Clone, Debug)]
enum KeysCommand {
    New(NewArgs),
    Token(TokenArgs),
    Rotate(RotateArgs),
    Ban(BanArgs),
    Show(ShowArgs),
}

/// Make a folder of keys: a root for each role, valid for a year
///
/// The folder is readable by you alone. Nothing is written over.
#[derive(Args, Clone, Debug)]
struct NewArgs {
    /// Folder to make; by default $XDG_CONFIG_HOME/tradewind/keys or ~/.config/tradewind/keys
    dir: Option<PathBuf>,
}

/// Print a token: one line that makes a program of another host take part, in one role
///
/// It is a secret. With it, programs of the role can be started, and of no other role, until it expires.
/// A file that it is written to with > is made readable by its owner alone.
#[derive(Args, Clone, Debug)]
struct TokenArgs {
    /// Role of the programs: ventilator, worker, sink, relay or client
    role: Role,

    /// Time after which the token is of no use; by default as long as the role's root
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,

    /// Address of the ventilator to put into the token, for programs that are given none
    #[arg(long, value_name = "ENDPOINT")]
    ventilator: Option<Endpoint>,

    /// Address of the sink to put into the token, likewise; may be repeated
    #[arg(long, value_name = "ENDPOINT")]
    sink: Vec<Endpoint>,

    #[command(flatten)]
    folder: FolderArgs,
}

/// Add a new root to a role; the old one is accepted for a while yet
///
/// Then give new tokens first to those that listen for the role, and then to the role's own hosts.
/// Programs that run read changed files again by themselves.
#[derive(Args, Clone, Debug)]
struct RotateArgs {
    /// Role: ventilator, worker, sink, relay or client
    role: Role,

    /// Time for which the old root is still accepted
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "7d")]
    overlap: Duration,

    #[command(flatten)]
    folder: FolderArgs,
}

/// Refuse a key from now on: a token's, or a root's with all of its tokens
///
/// Programs on this host close its connections within seconds. The list is a file, banned, in the folder or
/// beside the token; copy it to the other hosts.
#[derive(Args, Clone, Debug)]
struct BanArgs {
    /// Fingerprint of the key, as `tradewind keys show` prints it
    fingerprint: Fingerprint,

    #[command(flatten)]
    source: SourceArgs,
}

/// List roots, tokens that were made, and bans; or what is in a token
///
/// Each with its role, its fingerprint, and the time until which it is accepted. No secret is shown.
#[derive(Args, Clone, Debug)]
struct ShowArgs {
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Args, Clone, Debug)]
struct FolderArgs {
    /// Folder of keys; by default the one that `tradewind keys new` makes
    #[arg(long, env = KEYS_ENV, value_name = "PATH")]
    keys: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
struct SourceArgs {
    /// Folder of keys or file with a token; by default the folder that `tradewind keys new` makes, or else
    /// the token that a worker would find
    #[arg(long, env = KEYS_ENV, value_name = "PATH")]
    keys: Option<PathBuf>,
}

impl KeysArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let now = UnixTime::now();
        match self.command {
            KeysCommand::New(args) => args.main(now),
            KeysCommand::Token(args) => args.main(now),
            KeysCommand::Rotate(args) => args.main(now),
            KeysCommand::Ban(args) => args.main(),
            KeysCommand::Show(args) => args.main(now),
        }
    }
}

impl NewArgs {
    fn main(self, now: UnixTime) -> Outcome {
        let path = match self.dir {
            Some(dir) => dir,
            None => default_folder().ok_or_else(homeless)?,
        };
        let folder = Folder::create(&path, now).or_exit(SYSTEM)?;
        say(&format!("keys made in {}", folder.path().display()));
        if default_folder().is_none_or(|default| default != path) {
            say(&format!("programs find them with --keys {0} or {KEYS_ENV}={0}", path.display()));
        }
        say("for each other host: `tradewind keys token worker` (or ventilator, sink, relay)");
        Ok(OK)
    }
}

impl TokenArgs {
    fn main(self, now: UnixTime) -> Outcome {
        let folder = self.folder.open()?;
        let addresses = Addresses {
            ventilator: self.ventilator.map(|endpoint| endpoint.to_string()),
            sinks: self.sink.iter().map(ToString::to_string).collect(),
        };
        let life = self.expires.unwrap_or(ROOT_LIFE);
        let token = folder.token(self.role, life, addresses, now).or_exit(SYSTEM)?;
        let mut line = token.encode().or_exit(SYSTEM)?;
        line.push('\n');
        let mut stdout = io::stdout().lock();
        make_private(&stdout).or_exit(OUTPUT)?;
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).or_exit(OUTPUT)?;
        say(&format!(
            "token for a {}, {}, expires {}; it is a secret",
            token.role,
            token.fingerprint(),
            time_text(token.expires())
        ));
        Ok(OK)
    }
}

impl RotateArgs {
    fn main(self, now: UnixTime) -> Outcome {
        let (role, folder) = (self.role, self.folder.open()?);
        let folder = folder.rotate(role, self.overlap, now).or_exit(SYSTEM)?;
        let of_role = folder.anchors().filter(|anchor| anchor.role == role);
        if let Some(newest) = of_role.last() {
            say(&format!("{role}s have a new root, {}", newest.fingerprint()));
        }
        let overlap = time_text(UnixTime::since_unix_epoch(
            Duration::from_secs(now.as_secs()).saturating_add(self.overlap),
        ));
        say(&format!("the old one is accepted until {overlap}; until then:"));
        say(&format!(
            "- give new tokens to hosts that {role}s connect to or that connect to {role}s"
        ));
        say(&format!(
            "- then give new tokens to the hosts of {role}s: `tradewind keys token {role}`"
        ));
        Ok(OK)
    }
}

impl BanArgs {
    fn main(self) -> Outcome {
        let source = self.source.find()?;
        let is_new = source.ban(self.fingerprint).or_exit(SYSTEM)?;
        let list = source.banned_path();
        let what = if is_new { "banned" } else { "banned already" };
        say(&format!("{} is {what}, in {}", self.fingerprint, list.display()));
        if is_new {
            say("copy this file to the other hosts, beside their tokens");
        }
        Ok(OK)
    }
}

impl ShowArgs {
    fn main(self, now: UnixTime) -> Outcome {
        let text = match self.source.find()? {
            Source::Folder(path) => folder_text(&Folder::open(&path).or_exit(SYSTEM)?, now),
            Source::Token(path) => token_text(&path, &read_token(&path).or_exit(SYSTEM)?, now),
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).or_exit(OUTPUT)?;
        Ok(OK)
    }
}

impl FolderArgs {
    fn open(self) -> Result<Folder, Fatal> {
        let path = match self.keys {
            Some(path) => path,
            None => default_folder().ok_or_else(homeless)?,
        };
        if !path.exists() {
            let text =
                format!("{} does not exist: make keys with `tradewind keys new`", path.display());
            return Err(Fatal::new(SYSTEM, text));
        }
        Folder::open(&path).or_exit(SYSTEM)
    }
}

impl SourceArgs {
    fn find(self) -> Result<Source, Fatal> {
        if let Some(path) = self.keys {
            return Source::at(&path).or_exit(SYSTEM);
        }
        let folder = default_folder().filter(|path| fs::metadata(path).is_ok());
        if let Some(folder) = folder {
            return Ok(Source::Folder(folder));
        }
        let places = Places::of_process(None);
        places.find(Role::Worker).or_exit(SYSTEM)?.ok_or_else(|| {
            Fatal::new(
                SYSTEM,
                "there are no keys: make them with `tradewind keys new`, or name them with --keys",
            )
        })
    }
}

/// Makes a file that a shell has opened with everybody's rights readable by its owner alone: programs
/// would refuse the token in it.
fn make_private(stdout: &impl AsFd) -> io::Result<()> {
    let file = rustix::fs::fstat(stdout)?;
    if FileType::from_raw_mode(file.st_mode) == FileType::RegularFile {
        rustix::fs::fchmod(stdout, Mode::RUSR | Mode::WUSR)?;
    }
    Ok(())
}

fn homeless() -> Fatal {
    Fatal::new(USAGE, "there is no home directory: say where the keys are")
}

fn folder_text(folder: &Folder, now: UnixTime) -> String {
    let banned = |key: &Fingerprint| folder.banned().contains(key);
    let mut text = format!("{}\n\nroots\n", folder.path().display());
    for anchor in folder.anchors() {
        let key = anchor.fingerprint();
        let state = state(anchor.until, banned(&key), now);
        text += &format!("  {:<10}  {key}  {}{state}\n", anchor.role, time_text(anchor.until));
    }
    if !folder.issued().is_empty() {
        text += "tokens\n";
    }
    for issued in folder.issued() {
        let state = state(issued.expires, banned(&issued.fingerprint), now);
        let (role, key) = (issued.role, issued.fingerprint);
        text += &format!("  {role:<10}  {key}  {}{state}\n", time_text(issued.expires));
    }
    let is_elsewhere = |key: &&Fingerprint| {
        folder.anchors().all(|anchor| anchor.fingerprint() != **key)
            && folder.issued().iter().all(|issued| issued.fingerprint != **key)
    };
    let others: Vec<_> = folder.banned().iter().filter(is_elsewhere).collect();
    if !others.is_empty() {
        text += "other banned keys\n";
    }
    for key in others {
        text += &format!("  {:<10}  {key}\n", "");
    }
    text
}

fn token_text(path: &Path, token: &Token, now: UnixTime) -> String {
    let state = state(token.expires(), false, now);
    let (role, key, expires) = (token.role, token.fingerprint(), time_text(token.expires()));
    let mut text = format!("{}\n\ntoken\n  {role:<10}  {key}  {expires}{state}\n", path.display());
    if token.addresses != Addresses::default() {
        text += &format!("addresses\n  {}\n", token.addresses);
    }
    text += "accepts\n";
    for anchor in token.anchors() {
        let (role, until) = (anchor.role, time_text(anchor.until));
        text += &format!("  {role:<10}  {}  {until}\n", anchor.fingerprint());
    }
    text
}

fn state(until: UnixTime, is_banned: bool, now: UnixTime) -> &'static str {
    if is_banned {
        "  banned"
    } else if until < now {
        "  expired"
    } else {
        ""
    }
}
