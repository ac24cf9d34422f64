//! The front door to everything that is not `cargo build`.

fn main() {}
