//! Whole flows over the real binaries, and the rules that the tree itself must keep.

mod fuzz_corpus;
mod scripted_browser;
mod scripted_codex;
mod tidy;
