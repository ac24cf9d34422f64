//! Contents held over real files, small tiers and files that fail.

mod bench;
mod crowded;
mod failures;
mod held;
mod many;
mod model;
mod start;
mod world;
