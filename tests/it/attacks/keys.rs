//! Keys that are stolen, copied, restored from a backup, left behind or withdrawn, over real processes.

mod cluster;
mod moved;
mod signing;
mod stolen;
