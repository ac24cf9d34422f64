//! `cargo xtask lint --perf`: instructions of the pure core's steps and of whole exchanges, counted under callgrind and
//! compared to the recorded ones.
//!
//! A count does not depend on what else the host does, so that a few percent show. It is the difference of two runs with
//! different numbers of the same step: starting and ending are not in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::build;
use crate::command::{ask, step, which};
use crate::progress::{Mark, Step, note, painted};
use crate::project::{Project, cargo};
use crate::setup;

mod callgrind;
mod exchange;

/// So much more than recorded is a failure, in parts of a hundred.
const TOLERANCE: f64 = 3.0;
/// Optimised as a release, and linked in seconds.
const PROFILE: &str = "test-device";
const EXAMPLE: &str = "instructions";
const RECORD: &str = "docs/benchmarks/instructions.json";

/// The steps of the pure core, as the example calls them.
const STEPS: [(&str, &str); 3] = [
    ("request", "request head: parse, frame, write for the server"),
    ("reply", "reply head: parse, frame, write for the client"),
    ("chunks", "chunked content of 8 KB: decode"),
];
const FEW_STEPS: u32 = 1000;
const MANY_STEPS: u32 = 11_000;

/// What was counted, by its name.
type Counts = Map<String, Value>;

pub(super) fn run(project: &Project, record: bool) -> Result<ExitCode> {
    setup::count()?;
    let valgrind = which("valgrind").context("valgrind is not installed; on Debian: apt-get install valgrind")?;
    let (example, device) = (build_example(project)?, build_device(project)?);
    let mut counts = Counts::new();
    for (name, what) in STEPS {
        count(&mut counts, what, || {
            let run = |number: u32| callgrind::run(&valgrind, &example, &[name, &number.to_string()]);
            callgrind::difference((FEW_STEPS, run(FEW_STEPS)?), (MANY_STEPS, run(MANY_STEPS)?))
        })?;
    }
    for case in exchange::CASES {
        count(&mut counts, case.what, || exchange::count(&valgrind, &device, &case))?;
    }
    let file = project.root().join(RECORD);
    if record {
        let text = json!({ "compiler": compiler(), "profile": PROFILE, "instructions": counts });
        fs::write(&file, format!("{text:#}\n")).with_context(|| format!("writing {}", file.display()))?;
        note("perf", format!("recorded in {RECORD}"));
        return Ok(ExitCode::SUCCESS);
    }
    compare(&Recorded::read(&file)?, &counts)
}

fn build_device(project: &Project) -> Result<PathBuf> {
    let object = project.bpf_object();
    build::binary(project, PROFILE, object.is_file().then_some(object.as_path()))
}

fn build_example(project: &Project) -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.args(["build", "--package", "cmim-userspace", "--example", EXAMPLE, "--profile", PROFILE]);
    command.current_dir(project.root());
    build::embed(project, &mut command);
    step("perf", &format!("example {EXAMPLE} ({PROFILE})"), command, |_| "built".to_owned())?;
    Ok(project.target().join(PROFILE).join("examples").join(EXAMPLE))
}

fn count(counts: &mut Counts, what: &str, count: impl FnOnce() -> Result<f64>) -> Result<()> {
    let step = Step::start("perf", what);
    let found = count()?;
    step.done(format!("{found:.0} instructions"));
    counts.insert(what.to_owned(), json!(found.round()));
    Ok(())
}

/// What `--record` left.
struct Recorded {
    compiler: String,
    instructions: Counts,
}

impl Recorded {
    fn read(file: &Path) -> Result<Self> {
        let Ok(text) = fs::read_to_string(file) else {
            bail!("nothing to compare with: {RECORD} is not there; record it with: cargo xtask lint --perf --record");
        };
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{RECORD} is no JSON"))?;
        let instructions = value.get("instructions").and_then(Value::as_object).cloned();
        Ok(Self {
            compiler: value.get("compiler").and_then(Value::as_str).unwrap_or_default().to_owned(),
            instructions: instructions.with_context(|| format!("{RECORD} has no instructions"))?,
        })
    }
}

fn compare(recorded: &Recorded, counts: &Counts) -> Result<ExitCode> {
    let same_compiler = recorded.compiler == compiler();
    let mut good = true;
    for (what, found) in counts {
        let found = found.as_f64().context("a count that is no number")?;
        let Some(before) = recorded.instructions.get(what).and_then(Value::as_f64) else {
            good = false;
            note("perf", painted(Mark::Bad, &format!("{what}: not recorded; with: cargo xtask lint --perf --record")));
            continue;
        };
        let growth = (found / before - 1.0) * 100.0;
        let line = format!("{what}: {found:.0}, recorded {before:.0}, {growth:+.1} %");
        match judge(growth) {
            Judgement::Worse => {
                good &= !same_compiler;
                note("perf", painted(Mark::Bad, &format!("{line}: WORSE than the {TOLERANCE} % allowed")));
            }
            Judgement::Same => note("perf", line),
            Judgement::Better => note("perf", painted(Mark::Good, &format!("{line}: better; record it (--record)"))),
        }
    }
    if !same_compiler {
        let (now, then) = (compiler(), &recorded.compiler);
        note("perf", format!("recorded with {then}, this is {now}: growth is no failure; record it again (--record)"));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Worse,
    Same,
    Better,
}

fn judge(growth: f64) -> Judgement {
    if growth > TOLERANCE {
        Judgement::Worse
    } else if growth < -TOLERANCE {
        Judgement::Better
    } else {
        Judgement::Same
    }
}

fn compiler() -> String {
    ask("rustc", ["--version"]).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_tolerance_is_worse() {
        let judged = [3.1, 3.0, 0.0, -3.0, -3.1].map(judge);
        use Judgement::{Better, Same, Worse};
        assert_eq!(judged, [Worse, Same, Same, Same, Better]);
    }
}
