//! Whole flows over the real binaries, and the rules that the tree itself must keep.

mod attack;
mod attacks;
mod canary;
mod cluster;
mod codex_approvals;
mod codex_client;
mod codex_faults;
mod codex_threads;
mod demo;
mod directory;
mod flows;
mod fuzz_corpus;
mod identity;
mod load;
mod region;
mod scripted_browser;
mod scripted_codex;
mod sql;
mod tidy;
mod traces;
mod web_origin;
