//! Black-box tests of the `cmim` binary.
