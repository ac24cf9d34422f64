//! Finds the BPF object that `cargo xtask build` made, so that `kernel::load` can embed it.
//!
//! Without one the daemon is built all the same: it then runs in userspace only and says so. Nothing is compiled here:
//! the BPF toolchain is xtask's business.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Absolute path of the object; set by xtask.
const OBJECT_VARIABLE: &str = "CMIM_BPF_OBJECT";
/// Where xtask leaves it, from the workspace's root.
const DEFAULT_OBJECT: &str = "target/bpf/cmim-ebpf.o";
/// The name under which `kernel::load` includes it.
const EMBEDDED: &str = "cmim-ebpf.o";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-check-cfg=cfg(bpf_object)");
    println!("cargo:rerun-if-env-changed={OBJECT_VARIABLE}");
    // Without this line cargo would look at every file of the package.
    println!("cargo:rerun-if-changed=build.rs");

    let Some(object) = find_object()? else {
        println!("cargo:warning=built without the kernel part (no BPF object): run `cargo xtask build` for the whole");
        return Ok(());
    };
    println!("cargo:rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join(EMBEDDED);
    fs::copy(&object, &embedded).map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    println!("cargo:rustc-cfg=bpf_object");
    Ok(())
}

/// The named object, else the default one, else none. A named one that is not there is an error: whoever named it wants
/// the kernel part.
fn find_object() -> Result<Option<PathBuf>, Box<dyn Error>> {
    if let Some(named) = env::var_os(OBJECT_VARIABLE).filter(|value| !value.is_empty()) {
        let named = PathBuf::from(named);
        return if named.is_file() {
            Ok(Some(named))
        } else {
            Err(format!("{OBJECT_VARIABLE} names {}, which is no file", named.display()).into())
        };
    }
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let default = root.parent().unwrap_or(Path::new(".")).join(DEFAULT_OBJECT);
    Ok(default.is_file().then_some(default))
}
