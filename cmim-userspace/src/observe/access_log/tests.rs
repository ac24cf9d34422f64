//! Lines of several workers, rotation, and files that take none.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

fn config(path: &Path) -> model::AccessLog {
    model::AccessLog { path: model::AccessLogPath::File(path.to_owned()), format: model::AccessLogFormat::Json }
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("cmim-access-log-{}-{name}", std::process::id()));
    let _: io::Result<()> = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        thread::yield_now();
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn lines_of_several_workers_are_whole_and_in_the_file_after_drop() {
    let dir = scratch("workers");
    let path = dir.join("access.log");
    let log = AccessLog::open(&config(&path)).expect("opens");
    assert!(log.enabled());
    thread::scope(|scope| {
        for _ in 0..4 {
            let writer = log.writer(Arc::default());
            scope.spawn(move || {
                for _ in 0..5_000 {
                    writer.log(&log_line::tests::entry());
                }
            });
        }
    });
    drop(log);
    let text = fs::read_to_string(&path).expect("the log");
    assert_eq!(text.lines().count(), 20_000);
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert_eq!(value["status"], 200);
    }
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_lone_line_is_written_without_a_second_one() {
    let dir = scratch("lone");
    let path = dir.join("access.log");
    let log = AccessLog::open(&config(&path)).expect("opens");
    let writer = log.writer(Arc::default());
    writer.log(&log_line::tests::entry());
    until("the line is in the file", || lines(&path) == 1);
    drop(log);
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn after_a_rotation_reopen_goes_on_in_a_new_file() {
    let dir = scratch("rotate");
    let (path, rotated) = (dir.join("access.log"), dir.join("access.log.1"));
    let log = AccessLog::open(&config(&path)).expect("opens");
    let writer = log.writer(Arc::default());
    writer.log(&log_line::tests::entry());
    until("the first line", || lines(&path) == 1);
    fs::rename(&path, &rotated).expect("rotated");
    log.reopen().expect("reopens");
    writer.log(&log_line::tests::entry());
    until("the second line", || lines(&path) == 1);
    assert_eq!(lines(&rotated), 1);
    drop(log);
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_path_that_cannot_be_opened_names_the_key_and_the_path() {
    let error = AccessLog::open(&config(Path::new("/nonexistent/logs/access.log"))).expect_err("refused");
    let text = error.to_string();
    assert!(text.starts_with("access_log.path: cannot open /nonexistent/logs/access.log"), "{text}");
}

#[test]
fn a_missing_directory_is_made_and_none_above_it() {
    let dir = scratch("directory");
    let path = dir.join("logs/access.log");
    drop(AccessLog::open(&config(&path)).expect("opens"));
    let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
    assert_eq!((mode(&dir.join("logs")) & !0o755, mode(&path) & !0o640), (0, 0));
    // Also when the log is opened anew.
    let log = AccessLog::open(&config(&path)).expect("opens");
    fs::remove_dir_all(dir.join("logs")).expect("removed");
    log.reopen().expect("reopens");
    assert!(path.exists());
    drop(log);
    AccessLog::open(&config(&dir.join("one/two/access.log"))).expect_err("two directories are missing");
    assert!(!dir.join("one").exists());
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_group_gets_the_directory_that_was_made_and_no_other() {
    let dir = scratch("group");
    let path = dir.join("logs/access.log");
    let own = rustix::process::getegid().as_raw();
    let mode = |path: &Path| fs::metadata(path).expect("made").permissions().mode() & 0o777;
    let before = mode(&dir);
    AccessLog::open(&config(&dir.join("access.log"))).expect("opens").hand_to(own).expect("nothing to share");
    assert_eq!(mode(&dir), before);
    AccessLog::open(&config(&path)).expect("opens").hand_to(own).expect("shared");
    assert_eq!((mode(&dir.join("logs")), mode(&path)), (0o775, 0o660));
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let dir = scratch("full");
    let path = dir.join("access.log");
    symlink("/dev/full", &path).expect("a link to the full device");
    let log = AccessLog::open(&config(&path)).expect("opens");
    let counters = Arc::new(Counters::default());
    let writer = log.writer(Arc::clone(&counters));
    for _ in 0..10 {
        writer.log(&log_line::tests::entry());
    }
    until("all ten are counted", || counters.access_log_dropped.get() == 10);
    drop(log);
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn a_stuck_file_bounds_the_buffer_and_drops_lines() {
    let dir = scratch("stuck");
    let path = dir.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    // Read and write: opening blocks on nobody, and nobody reads.
    let reader = OpenOptions::new().read(true).write(true).open(&path).expect("opens");
    let log = AccessLog::open(&config(&path)).expect("opens");
    let counters = Arc::new(Counters::default());
    let writer = log.writer(Arc::clone(&counters));
    let target = vec![b'a'; 64 * 1024];
    let mut entry = log_line::tests::entry();
    entry.target = &target;
    for _ in 0..1_000 {
        writer.log(&entry);
    }
    let held = writer.target.as_ref().map_or(0, |target| target.buffer.lines.lock().text.len());
    assert!(held < BUFFER_LIMIT + 128 * 1024, "{held}");
    assert!(counters.access_log_dropped.get() > 0);
    drop(log);
    drop(reader);
    fs::remove_dir_all(dir).expect("removed");
}

#[test]
fn off_takes_no_lines() {
    let off = model::AccessLog { path: model::AccessLogPath::Off, format: model::AccessLogFormat::Json };
    let log = AccessLog::open(&off).expect("opens");
    assert!(!log.enabled());
    assert!(!log.writer(Arc::default()).enabled());
    log.reopen().expect("nothing to do");
}
