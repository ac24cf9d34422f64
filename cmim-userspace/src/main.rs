//! The `cmim` binary.

fn main() {}
