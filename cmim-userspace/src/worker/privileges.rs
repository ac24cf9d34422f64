//! What the process may do: descriptors up to the host's limit, and the user that it becomes.

use std::ffi::CString;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Why the daemon cannot become the configured user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("daemon.user: there is no user \"{0}\" (`useradd --system {0}` makes one)")]
    Unknown(String),
    #[error("daemon.user: only root can become \"{0}\"; remove the key or start as root")]
    NotRoot(String),
    #[error("daemon.user: cannot become \"{user}\": {source}")]
    Change { user: String, source: io::Error },
}

/// A user that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Looks a name up; `None` where that user is the present one already.
    pub(super) fn find(name: &str) -> Result<Option<Self>, UserError> {
        let unknown = || UserError::Unknown(name.to_owned());
        let found = uzers::get_user_by_name(name).ok_or_else(unknown)?;
        let user = Self { name: name.to_owned(), uid: found.uid(), gid: found.primary_group_id() };
        let present = rustix::process::geteuid();
        if present.as_raw() == user.uid {
            return Ok(None);
        }
        if !present.is_root() {
            return Err(UserError::NotRoot(name.to_owned()));
        }
        Ok(Some(user))
    }

    /// Becomes this user, in all threads, for good.
    pub(super) fn become_it(&self) -> Result<(), UserError> {
        let failed = |source| UserError::Change { user: self.name.clone(), source };
        let name = CString::new(self.name.as_str()).map_err(|error| failed(error.into()))?;
        change_user(&name, self.uid, self.gid).map_err(failed)
    }
}

#[expect(unsafe_code, reason = "rustix changes the calling thread's user only; libc changes all threads'")]
fn change_user(name: &std::ffi::CStr, uid: u32, gid: u32) -> io::Result<()> {
    let check = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: `name` is a C string that outlives the call.
    check(unsafe { libc::initgroups(name.as_ptr(), gid) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setgid(gid) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setuid(uid) })
}

/// Allows as many descriptors as the host lets this process have; how many those are, where there is a limit.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!("cannot raise the limit of open files: {error}");
            limit.current
        }
    }
}
