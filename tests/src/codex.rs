//! The real Codex with its own home, and a second client at the desk.

pub mod desk;
pub mod home;

pub use self::desk::Desk;
pub use self::home::{CodexHome, Daemon};
