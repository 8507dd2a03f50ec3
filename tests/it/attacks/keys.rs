//! Keys that are stolen, copied, restored from a backup, left behind or withdrawn, over real processes.

mod cluster;
mod lost;
mod p256;
mod signing;
mod stolen;
