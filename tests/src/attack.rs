//! How hard an attack is: bounded and short in the suite, in full by `cargo xtask attack`.
//!
//! An attack is a device test in a file `tests/tests/attack_*.rs`: it attacks the device and asserts what must not break.

/// Set by `cargo xtask attack`.
const FULL: &str = "CMIM_ATTACK";

/// `short` in the suite, `full` where `cargo xtask attack` runs the test.
pub fn scale<T>(short: T, full: T) -> T {
    if is_full() { full } else { short }
}

/// Whether `cargo xtask attack` runs the test.
pub fn is_full() -> bool {
    std::env::var_os(FULL).is_some()
}
