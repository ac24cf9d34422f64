//! From a file to a [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::address::parse_control_socket;
use super::document::{self, Lines};
use super::error::{ConfigError, ConfigErrors, Place, Problem, Spot, Unfit, quoted};
use super::model::Config;
use super::validate::validate;

/// Largest file that is read. A configuration of thousands of servers has some hundred KiB; a device file has no end.
const LARGEST_FILE: u64 = 16 << 20;

/// Where a daemon's configuration comes from, so that it can be read again.
#[derive(Debug, Clone)]
pub struct Source {
    /// Absolute.
    pub file: PathBuf,
    /// `--control`: where this daemon's socket is, whatever the file says; absolute.
    control: Option<PathBuf>,
}

impl Source {
    /// Relative paths are meant from the present directory.
    ///
    /// # Errors
    ///
    /// When `control` is no path for a daemon's socket.
    pub fn new(file: &Path, control: Option<&Path>) -> Result<Self, ConfigErrors> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Ok(Self { file, control: control.map(control_socket).transpose()? })
    }

    /// Reads, checks and resolves the file; every error in it is in the `Err`.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let mut config = load(&self.file)?;
        if let Some(control) = &self.control {
            config.daemon.control_socket.clone_from(control);
        }
        Ok(config)
    }
}

/// `--control` beside a file, held to the same as the file's own key.
fn control_socket(path: &Path) -> Result<PathBuf, ConfigErrors> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let read = absolute.to_str().ok_or_else(|| Unfit::new("a path in UTF-8")).and_then(parse_control_socket);
    read.map_err(|unfit| {
        let place = Place::Flag { flag: "--control", order: 0 };
        let found = quoted(&absolute.to_string_lossy());
        let spot = Spot { key: String::new(), place };
        ConfigErrors::from(ConfigError { spot, problem: Problem::Unfit { found, unfit } })
    })
}

/// Reads, checks and resolves the file at `path`; every error in it is in the `Err`.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let file_name = path.display().to_string();
    let refuse = |problem| ConfigErrors::from(whole_file(&file_name, problem));
    let bytes = read_bytes(path).map_err(|source| refuse(Problem::Unreadable { source }))?;
    let too_large = u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST_FILE);
    if too_large {
        return Err(refuse(Problem::TooLarge { limit: LARGEST_FILE }));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&text, &file_name),
        Err(error) => {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let before = String::from_utf8_lossy(valid);
            let place = Lines::new(&before, &file_name).place(before.len());
            let message = "this byte is no UTF-8; save the file as UTF-8".to_owned();
            Err(ConfigErrors::from(ConfigError {
                spot: Spot { key: String::new(), place },
                problem: Problem::Syntax { message },
            }))
        }
    }
}

/// The same from the text of a file; `file_name` is for the messages only.
pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigErrors> {
    let document = document::read(text, file_name)?;
    validate(&document)
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let one_too_many = LARGEST_FILE.saturating_add(1);
    File::open(path)?.take(one_too_many).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn whole_file(file_name: &str, problem: Problem) -> ConfigError {
    ConfigError { spot: Spot { key: String::new(), place: Place::File { file: file_name.into() } }, problem }
}
