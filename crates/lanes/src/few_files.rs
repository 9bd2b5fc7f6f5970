//! Tests in a process of their own that has hardly any open files left.

use std::env;
use std::fs::{File, read_dir};
use std::io;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const DIR: &str = "TRADEWIND_TEST_DIR";

/// Runs the test of this name once more in a process of its own. There, does something with an empty directory
/// while 0, 1, 2 and 3 files more can be opened, and checks that what comes of it leaves nothing there.
pub(crate) fn with_files_left<T>(name: &str, act: impl Fn(&Path, usize) -> io::Result<T>) {
    let Some(dir) = env::var_os(DIR) else {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(env::current_exe().unwrap());
        let child = child.args(["--exact", name, "--nocapture"]).env(DIR, dir.path());
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        return;
    };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..limit }).unwrap();
    for left in 0..=3 {
        let mut files = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        files.truncate(files.len() - left);
        let made = act(dir.as_ref(), left);
        drop(files);
        drop(made);
        assert_eq!(read_dir(&dir).unwrap().count(), 0, "with {left} files left");
    }
}
